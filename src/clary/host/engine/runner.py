"""The instance's process beside a container: starts it, carries its output and its connections, ends with it.

Forked and minded like a model server, on rung 0 because it is the platform's own code. In order: create the container,
attach to its output, watch its first process where the engine has made it by then, start it, open a door into its
network (`door`), and then wait:

  - connections to the instance's socket go to the container's port, and those it makes to the platform's address on
    its own loopback (credentials of its role, `s3://`) come out here;
  - SIGTERM is passed on, and SIGKILL follows a little before the minder's own, so that the container never stays;
  - the container's end is seen by its first process, not by the engine: an engine that is stopped or restarted
    meanwhile costs the lines that the container prints in that time, and nothing else.

How it ended is written to `container.json`, the container is removed, and its exit code becomes this process's own.
What a killed runner leaves is removed by the host (`containers`).
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from clary.host.engine import notes
from clary.host.engine.api import EngineAway, EngineClient, EngineError, EngineRefused, Output
from clary.host.engine.door import Door, DoorClosed
from clary.host.engine.killings import Killings
from clary.host.engine.notes import Note
from clary.host.engine.relay import Dial, Incoming

DEFAULT_GRACE_S = 30.0
LONGEST_HEAD_START_S = 1.0
END_TIMEOUT_S = 60.0
LONGEST_AWAY_S = 20.0
REATTACH_EVERY_S = 1.0
BACKLOG = 1024
KILLED = 128 + signal.SIGKILL

_CONFLICT = 409
_LOST = b"[clary] the container engine was away; what the container printed meanwhile is lost\n"


class _Stopped(Exception):
    """SIGTERM before the container ran."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the host wants run (`containers` makes it)."""

    engine: str  # the engine's socket
    name: str
    creation: dict[str, Any]  # as the engine takes it
    directory: str  # the instance's
    port: int  # the container's
    published: bool  # the engine publishes the port, because the door would not open
    platform: str  # `host:port` of the platform, for the container to reach; nothing when it has no way out


def main(config: Mapping[str, Any]) -> int:
    plan = Plan(**config)
    signal.signal(signal.SIGTERM, _stop_early)
    runner = _Runner(plan, EngineClient(plan.engine))
    try:
        container = runner.begin()
    except _Stopped:
        runner.withdraw()
        return 0
    except (EngineError, DoorClosed) as error:
        removed = runner.withdraw()
        notes.write(Path(plan.directory), Note(refused=str(error), removed=removed))
        print(f"[clary] the container could not be started: {error}", file=sys.stderr)
        return 1
    try:
        return container.run()
    except _Stopped:  # before its loop took the signal
        runner.withdraw()
        return 0


def _stop_early(number: int, frame: object) -> NoReturn:
    raise _Stopped


@dataclass(frozen=True, slots=True)
class _First:
    """The container's first process. `watched`: its pidfd, where it runs."""

    note: Note
    watched: int | None
    killings: Killings


class _Runner:
    """The container, up to its start."""

    def __init__(self, plan: Plan, engine: EngineClient) -> None:
        self._plan = plan
        self._engine = engine

    def begin(self) -> "_Running":
        plan, engine = self._plan, self._engine
        id = self._create()
        output = engine.attach(id)
        first = self._look(id)
        engine.start(id)
        if first.note.pid <= 0:
            # Docker makes it only now. Of Podman's, which was there before, nothing that happens goes unseen.
            first = self._look(id)
        if first.watched is None:  # it has ended already: there is nothing to reach
            return _Running(plan, engine, first, output, None, plan.port)
        try:
            door, port = self._reach(id, first.note.pid)
        except (DoorClosed, EngineError):
            if _is_alive(first.note):
                raise
            return _Running(plan, engine, replace(first, watched=None), output, None, plan.port)
        return _Running(plan, engine, first, output, door, port)

    def withdraw(self) -> bool:
        """What was made of it goes; what cannot be removed now, the host removes later."""
        return _removed(self._engine, self._plan.name)

    def _reach(self, id: str, pid: int) -> tuple[Door | None, int]:
        """The way to its port. Raises `DoorClosed` or `EngineError`, also where it has ended meanwhile."""
        plan = self._plan
        if plan.published:
            return None, _published(self._engine.inspect(id), plan.port)
        return Door(pid, _address(plan.platform) if plan.platform else None), plan.port

    def _look(self, id: str) -> "_First":
        found = self._engine.inspect(id)
        pid = int(found["State"]["Pid"])
        limits_memory = bool(self._plan.creation.get("HostConfig", {}).get("Memory"))
        note = Note(id, pid, _start_time(pid), layer=_layer(found), limits_memory=limits_memory)
        return _First(note, _pidfd(pid), Killings(pid))

    def _create(self) -> str:
        try:
            return self._engine.create(self._plan.name, self._plan.creation)
        except EngineRefused as error:
            if error.status != _CONFLICT:
                raise
        # An instance is started once, so this is what a machine that went down in the middle has left.
        self._engine.remove(self._plan.name)
        return self._engine.create(self._plan.name, self._plan.creation)


class _Running:
    """The container while it runs."""

    def __init__(
        self,
        plan: Plan,
        engine: EngineClient,
        first: _First,
        output: Output,
        door: Door | None,
        port: int,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._note = first.note
        self._watched = first.watched
        self._door = door
        self._port = port
        self._killings = first.killings
        self._killed = 0
        self._answered = False
        self._over = threading.Event()
        self._pump = threading.Thread(target=self._carry_output, args=(output,), name="output", daemon=True)

    def run(self) -> int:
        self._pump.start()
        if self._watched is not None:
            uvloop.run(self._until_ended(self._watched))
        self._killed = self._killed or self._killings.count()
        return self._end()

    async def _until_ended(self, watched: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(watched, ended.set)
        loop.add_signal_handler(signal.SIGTERM, self._pass_on, loop)
        servers = [await self._serve(loop)]
        # From here on the host counts the time until the first good ping, and measures what the container uses.
        notes.write(Path(self._plan.directory), self._note)
        if self._door is not None and self._door.listener is not None:
            dial = _dial_address(loop, _address(self._plan.platform))
            servers.append(
                await loop.create_server(lambda: Incoming(dial, lambda: b""), sock=self._door.listener)
            )
        await ended.wait()
        self._killed = self._killings.count()  # at once: its cgroup goes too
        for server in servers:
            server.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> asyncio.Server:
        path = Path(self._plan.directory) / "http.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        dial = self._dial_container(loop)
        return await loop.create_unix_server(
            lambda: Incoming(dial, self._refusal), sock=listener, backlog=BACKLOG
        )

    def _dial_container(self, loop: asyncio.AbstractEventLoop) -> Dial:
        make: Callable[[], socket.socket] = (
            self._door.make_socket if self._door is not None else lambda: socket.socket(socket.AF_INET)
        )

        async def dial(factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport | None:
            found = await _connect(loop, make, ("127.0.0.1", self._port), factory)
            self._answered = self._answered or found is not None
            return found

        return dial

    def _refusal(self) -> bytes:
        """While it starts, whoever asks is told; later a broken connection is what it is."""
        if self._answered:
            return b""
        text = f"nothing listens on port {self._plan.port} in the container".encode()
        return b"HTTP/1.1 503 Not Ready\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
            len(text), text,
        )  # fmt: skip

    def _pass_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """SIGTERM. The minder reads the same time from stop.json."""
        grace_s = _grace_s(Path(self._plan.directory))
        loop.run_in_executor(None, self._signal, signal.SIGTERM)
        left_s = grace_s - min(LONGEST_HEAD_START_S, grace_s / 5)
        loop.call_later(left_s, lambda: loop.run_in_executor(None, self._signal, signal.SIGKILL))

    def _signal(self, number: signal.Signals) -> None:
        """To its first process, which needs no engine; through the engine where that is not allowed."""
        assert self._watched is not None, "it ran"
        try:
            signal.pidfd_send_signal(self._watched, number)
        except ProcessLookupError:
            return
        except PermissionError:
            with suppress(EngineError):  # it may be ending, and the minder ends this process in time
                self._engine.kill(self._note.container, number)

    def _carry_output(self, output: Output) -> None:
        """To this process's own stdout, which is the log. The engine may come and go."""
        while True:
            # It may go in the middle of a piece.
            with suppress(OSError, EngineError, http.client.HTTPException):
                for data in output:
                    _write_all(data)
            output.close()
            while True:
                if self._over.wait(REATTACH_EVERY_S) or not _is_alive(self._note):
                    return
                with suppress(EngineError):
                    output = self._engine.attach(self._note.container)
                    _write_all(_LOST)
                    break

    def _end(self) -> int:
        note = self._how_it_ended()
        self._over.set()
        self._pump.join(END_TIMEOUT_S)
        note = replace(note, removed=_removed(self._engine, self._note.container))
        notes.write(Path(self._plan.directory), note)
        return 1 if note.exit_code is None else note.exit_code

    def _how_it_ended(self) -> Note:
        """As the engine says. One that is away is given some time, but not much: the end is what a replacement
        waits for.
        """
        known = self._note
        deadline = time.monotonic() + LONGEST_AWAY_S
        while time.monotonic() < deadline:
            try:
                code = self._engine.wait(known.container, END_TIMEOUT_S)
                told = self._engine.inspect(known.container)["State"].get("OOMKilled")
            except EngineAway:
                time.sleep(REATTACH_EVERY_S)
                continue
            except EngineError:
                break
            killed = code == KILLED and self._killed > 0
            return replace(known, exit_code=code, out_of_memory=bool(told) or killed)
        return known


def _removed(engine: EngineClient, container: str) -> bool:
    try:
        engine.remove(container)
    except EngineError:
        return False
    return True


def _dial_address(loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> Dial:
    async def dial(factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport | None:
        return await _connect(loop, lambda: socket.socket(socket.AF_INET), address, factory)

    return dial


async def _connect(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], socket.socket],
    address: tuple[str, int],
    factory: Callable[[], asyncio.Protocol],
) -> asyncio.Transport | None:
    try:
        made = make()
    except DoorClosed:
        return None
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await loop.sock_connect(made, address)
        transport, _ = await loop.create_connection(factory, sock=made)
    except OSError:
        made.close()
        return None
    return transport


def _published(found: Mapping[str, Any], port: int) -> int:
    bindings = found["NetworkSettings"]["Ports"].get(f"{port}/tcp") or []
    if not bindings:
        raise EngineRefused(500, f"the engine did not publish port {port}")
    return int(bindings[0]["HostPort"])


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _grace_s(directory: Path) -> float:
    try:
        return float(json.loads((directory / "stop.json").read_bytes())["grace_s"])
    except FileNotFoundError:
        return DEFAULT_GRACE_S


def _pidfd(pid: int) -> int | None:
    if pid <= 0:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _start_time(pid: int) -> int:
    """0 where there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _layer(found: Mapping[str, Any]) -> str:
    """Engines that keep containers in overlay file systems say where; others say nothing."""
    return str(((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir") or "")


def _is_alive(note: Note) -> bool:
    return note.start_time > 0 and _start_time(note.pid) == note.start_time


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
