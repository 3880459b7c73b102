"""Real gateway processes, with a scripted container behind them and the test itself as control."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import botocore.config
import botocore.session

from clary import credentials
from clary import settings as clary_settings
from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.door import State, ask_state
from clary.links.routes import RouteHub
from clary.settings import Settings
from clary.wire.sessions import Credentials, KeyRing

ACCOUNT = "123456789012"
REGION = "us-east-1"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Seen:
    """One request as the container got it."""

    line: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[socket.socket, Seen], bool]
"""Answers one request; False closes the connection."""


def answering(
    body: bytes = b"", *, status: str = "200 OK", headers: str = "content-type: text/csv\r\n"
) -> Behaviour:
    def answer(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body)
        return True

    return answer


def sending(data: bytes) -> Behaviour:
    """Writes these bytes, whatever they are, and closes."""

    def answer(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(data)
        return False

    return answer


class Container:
    """An HTTP server on a Unix socket whose answers a test scripts."""

    def __init__(self, path: Path, behaviour: Behaviour | None = None) -> None:
        self.path = path
        self.behaviour = behaviour or answering(b"1.0")
        self.raw: Callable[[socket.socket], None] | None = None  # instead: handles a connection all by itself
        self.seen: list[Seen] = []
        self.connections = 0
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._spawn(self._accept)

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def close(self) -> None:
        """Everything ends, as if it had been killed."""
        self.path.unlink(missing_ok=True)
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.add(sock)
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock, sock.makefile("rb") as file:
            if self.raw is not None:
                self.raw(sock)
                return
            while (seen := _read_request(file)) is not None:
                self.seen.append(seen)
                if not self.behaviour(sock, seen):
                    break

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


def _read_request(file: Any) -> Seen | None:
    line = file.readline().decode().strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := file.readline().decode("latin-1").strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(file))
    else:
        body = file.read(int(headers.get("content-length", "0")))
    return Seen(line, headers, body)


def _chunks(file: Any) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()


@dataclass
class World:
    """Control's end, the gateways, and clients for them."""

    settings: Settings
    hub: RouteHub
    listening: socket.socket
    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)
    names: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def start_gateway(self, number: int = 0, *, until_ready: bool = True) -> "subprocess.Popen[bytes]":
        descriptor = self.listening.fileno()
        settings_file = str(self.settings.run_dir / "settings.json")
        command = [sys.executable, "-m", "clary.gateway", "--settings", settings_file]
        command += ["--number", str(number), "--listen-fd", str(descriptor)]
        log = (self.settings.server_log_dir / f"gateway-{number}.log").open("ab")
        with log:
            process = subprocess.Popen(command, pass_fds=[descriptor], stdout=log, stderr=log)
        self.processes[number] = process
        if until_ready:
            self.await_gateway(number)
        return process

    def await_gateway(self, number: int) -> None:
        process = self.processes[number]

        def is_ready() -> bool:
            assert process.poll() is None, self.gateway_log(number)
            try:
                return ask_state(self.settings.gateway_socket(number)).pid == process.pid
            except OSError:
                return False

        eventually(is_ready)

    def state(self, number: int = 0) -> State:
        """What a gateway says of itself; asked again where the machine has no time for its answer."""
        told: list[State] = []

        def tells() -> bool:
            with suppress(OSError):
                told.append(ask_state(self.settings.gateway_socket(number)))
            return bool(told)

        eventually(tells)
        return told[0]

    def gateway_log(self, number: int = 0) -> str:
        return (self.settings.server_log_dir / f"gateway-{number}.log").read_text()

    def container(self, behaviour: Behaviour | None = None) -> Container:
        container = Container(self.settings.run_dir / f"c{len(self.containers)}.sock", behaviour)
        self.containers.append(container)
        return container

    def endpoint(self, *containers: Container, generation: int = 1, name: str = "", **variant: Any) -> str:
        """Publishes an endpoint with one variant; its name."""
        if not name:
            self.names += 1
            name = f"Endpoint-{self.names}"
        timeout_s = variant.pop("timeout_s", 30.0)
        targets = tuple(target(container) for container in containers)
        variants = (VariantRoute("AllTraffic", 1.0, targets, **variant),)
        self.hub.publish(EndpointRoute(key(name), name, f"uid-{name}", generation, variants, timeout_s))
        return name

    def client(self, service: str = "sagemaker-runtime", *, region: str = REGION, **config: Any) -> Any:
        root = self.root
        client = botocore.session.Session().create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=root.access_key_id,
            aws_secret_access_key=root.secret_access_key,
            config=botocore.config.Config(
                **{"retries": {"total_max_attempts": 1}, "read_timeout": PATIENCE_S, **config}
            ),
        )
        self.clients.append(client)
        return client

    @property
    def root(self) -> Credentials:
        return KeyRing.load(self.settings.keys_dir / "credentials.json", ACCOUNT).root

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for process in self.processes.values():
            process.send_signal(SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.send_signal(SIGKILL)
                process.wait()
        for container in self.containers:
            container.close()
        self.hub.close()
        self.listening.close()


def key(name: str) -> EndpointKey:
    return EndpointKey(ACCOUNT, REGION, name.lower())


def target(container: Container) -> Target:
    return Target(InstanceId(f"i-{container.path.stem}"), container.address)


def make_settings(directory: Path, **changes: Any) -> Settings:
    changes = {"data_dir": directory, "gateway_ack_timeout_s": PATIENCE_S, **changes}
    settings = clary_settings.load(changes, {})
    for path in (settings.run_dir, settings.keys_dir, settings.server_log_dir):
        path.mkdir(parents=True)
    credentials.ensure(settings)
    (settings.run_dir / "settings.json").write_text(clary_settings.dump(settings))
    return settings


@contextmanager
def world(directory: Path, *, gateways: int = 1, **changes: Any) -> Iterator[World]:
    settings = make_settings(directory, **changes)
    hub = RouteHub(settings, starts_within_s=0.0)  # a gateway that is young here is no excuse
    hub.start()
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    made = World(settings, hub, listening)
    try:
        for number in range(gateways):
            made.start_gateway(number, until_ready=False)
        for number in range(gateways):
            made.await_gateway(number)
        yield made
    finally:
        made.close()


def eventually(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Waits until it is so, looking often. Fails when it never is."""
    waiting = threading.Event()
    for _ in range(int(patience_s / 0.01)):
        if is_so():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came to be so")


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 -- /proc, where a listing is the point
