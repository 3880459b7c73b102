"""What every framework folder must keep, as the host uses it: forked from a process that has it loaded.

A folder is found by its manifest. Its `sample/` holds a model, and in `request.json` one request with the answer. It
runs in the tests' own Python where that has the framework, else in the environment that Clary builds for it.
"""

import functools
import http.client
import importlib.util
import json
import re
import select
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clary.runtimes.frameworks
from framework_environments import python_of
from framework_processes import Launched, Zygote

FOLDERS = sorted(path.parent for path in Path(clary.runtimes.frameworks.__path__[0]).glob("*/manifest.toml"))
SOURCES = Path(clary.runtimes.frameworks.__path__[0]).parents[2]
INSTALLED = {"sklearn": "sklearn", "xgboost": "xgboost", "xgboost_script": "xgboost"}
STARTED: list[Zygote] = []
WITH_OWN_THREADS = {"tensorflow"}  # of a loaded model's session, whatever is asked of it
LOCKS = sorted(path for folder in FOLDERS for path in folder.glob("*.lock"))

PATIENCE_S = 240.0
ZYGOTE = Path(__file__).parents[1] / "framework_zygote.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Framework:
    folder: Path
    manifest: dict[str, Any]
    request: dict[str, str]

    @property
    def model_dir(self) -> Path:
        return self.folder / "sample" / "model"


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def framework(request: pytest.FixtureRequest) -> Framework:
    folder: Path = request.param
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    sample = json.loads((folder / "sample" / "request.json").read_text())
    return Framework(folder, manifest, sample)


@dataclass(slots=True)
class Server:
    process: Launched
    child: int
    path: Path

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.path))
        return connection


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, server: Server) -> None:
        super().__init__("instance")
        self._server = server

    def connect(self) -> None:
        self.sock = self._server.connect()


def launch(framework: Framework, model_dir: Path, tmp_path: Path, **config: object) -> Launched:
    full = {
        "module": framework.manifest["module"],
        "model_dir": str(model_dir),
        "environment": {},
        "listen": f"unix:{tmp_path / 'http.sock'}",
        "vcpus": 2,
        "memory_bytes": 1 << 30,
        "max_payload_bytes": 25 << 20,
        "container": "primary",
        **config,
    }
    return zygote_of(framework.folder).fork(full)


@functools.cache
def zygote_of(folder: Path) -> Zygote:
    """One for all tests: importing a framework takes seconds."""
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    variables = {**ONE_THREAD, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCES)}
    zygote = Zygote([python_for(folder), str(ZYGOTE), *manifest["preload"]], variables)
    STARTED.append(zygote)
    return zygote


@pytest.fixture(scope="module", autouse=True)
def zygotes() -> Iterator[None]:
    yield
    zygote_of.cache_clear()
    while STARTED:
        STARTED.pop().close()


def python_for(folder: Path) -> str:
    """A Python that has the framework: the environment is built where it is not there yet."""
    if folder.name in INSTALLED and importlib.util.find_spec(INSTALLED[folder.name]):
        return sys.executable
    return str(python_of(folder.name))


@contextmanager
def serving(framework: Framework, tmp_path: Path, **config: object) -> Iterator[Server]:
    process = launch(framework, framework.model_dir, tmp_path, **config)
    child = 0
    try:
        for line in process.stdout:
            if line.startswith(b"child "):
                child = int(line.split()[1])
            if b"serving at" in line:
                break
        else:
            pytest.fail(f"the server ended: {process.communicate(PATIENCE_S)[1].decode()}")
        while not child:  # who waits for the server may have its turn after the server
            line = process.stdout.readline()
            assert line, "nobody waits for the server"
            child = int(line.split()[1]) if line.startswith(b"child ") else 0
        yield Server(process, child, tmp_path / "http.sock")
    finally:
        stop(process, child)


def stop(process: Launched, child: int) -> int:
    if process.poll() is None and child:
        subprocess.run(["kill", "-TERM", str(child)], check=False)
    process.communicate(PATIENCE_S)
    return process.wait(PATIENCE_S)


def test_the_manifest_says_what_the_host_needs(framework: Framework) -> None:
    manifest = framework.manifest
    assert manifest["name"] == framework.folder.name
    assert manifest["module"].startswith(f"clary.runtimes.frameworks.{framework.folder.name}.")
    others = [tomllib.loads((folder / "manifest.toml").read_text()) for folder in FOLDERS]
    assert manifest["repositories"] or manifest["name"] in [other.get("script") for other in others]
    assert set(manifest["roles"]) <= {"serve", "train", "process", "transform"}
    assert isinstance(manifest["fork_safe"], bool)
    assert manifest["module"] in manifest["preload"] or not manifest["fork_safe"]
    assert all(re.fullmatch(r"[A-Z_]+\*?", name) for name in manifest["import_time_environment"])


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_lock_pins_everything_and_names_no_index(path: Path) -> None:
    lock = path.read_text()
    requirements = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all(
        re.match(r"[a-z0-9-]+==[^ ]+ (;.*)?\\$|[a-z0-9-]+==[^ ]+ ; .*\\$", line) for line in requirements
    )
    assert lock.count("--hash=sha256:") >= len(requirements)
    assert "://" not in lock
    assert {"uvloop", "httptools"} <= {line.partition("==")[0] for line in requirements}


def test_no_two_frameworks_answer_for_one_repository() -> None:
    manifests = [tomllib.loads((folder / "manifest.toml").read_text()) for folder in FOLDERS]
    repositories = [name for manifest in manifests for name in manifest["repositories"]]
    assert len(repositories) == len(set(repositories))


def test_H02_a_forked_instance_pings_predicts_and_stops(framework: Framework, tmp_path: Path) -> None:
    with serving(framework, tmp_path) as server:
        client = UnixConnection(server)
        client.request("GET", "/ping")
        assert (response := client.getresponse()).status == 200
        assert response.read() == b""
        for number in range(3):  # on the same connection
            client.request(
                "POST",
                "/invocations",
                framework.request["body"].encode(),
                {"Content-Type": framework.request["content_type"]},
            )
            response = client.getresponse()
            assert (response.status, response.read().decode()) == (200, framework.request["answer"])
            if number == 0 and framework.folder.name not in WITH_OWN_THREADS:
                # Small requests need none. On a busy machine this one may take so long that later ones get one.
                assert len(list(Path(f"/proc/{server.child}/task").iterdir())) == 1
        client.request("GET", "/execution-parameters")
        parameters = json.loads(client.getresponse().read())
        assert set(parameters) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
        client.close()
        assert stop(server.process, server.child) == 0


def test_bodies_come_in_chunks_ahead_and_slowly(framework: Framework, tmp_path: Path) -> None:
    body, answer = framework.request["body"].encode(), framework.request["answer"].encode()
    head = b"POST /invocations HTTP/1.1\r\nContent-Type: %b\r\n" % framework.request["content_type"].encode()
    sized = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with serving(framework, tmp_path) as server, server.connect() as connection:
        connection.sendall((sized + chunked) * 10)
        for byte in chunked[:-1]:
            connection.sendall(bytes([byte]))
        connection.sendall(chunked[-1:])
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(answer) == 21


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"hello\r\n\r\n", b"\0" * 70_000]
)
def test_garbage_ends_only_its_own_connection(framework: Framework, tmp_path: Path, garbage: bytes) -> None:
    with serving(framework, tmp_path) as server:
        with server.connect() as bad:
            # What comes after the answer is read by nobody, and its sender may be told so.
            with suppress(ConnectionError):
                bad.sendall(garbage)
            assert bad.recv(65536).startswith(b"HTTP/1.1 4")
            with suppress(ConnectionError):
                assert bad.recv(65536) == b""
        with server.connect() as good:
            good.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
            assert good.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_over_the_limit_is_413(framework: Framework, tmp_path: Path) -> None:
    with serving(framework, tmp_path, max_payload_bytes=1000) as server, server.connect() as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_ping_is_answered_while_large_requests_are_predicted(framework: Framework, tmp_path: Path) -> None:
    body = framework.request["body"].encode()
    head = "POST /invocations HTTP/1.1\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    with serving(framework, tmp_path) as server, server.connect() as large, server.connect() as small:
        large.sendall(head.format(framework.request["content_type"], 4_000_000).encode())
        large.sendall((body * (4_000_000 // len(body) + 1))[:4_000_000])
        small.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        assert small.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert large.recv(65536).startswith(b"HTTP/1.1 ")


def test_stopping_finishes_the_request_under_way(framework: Framework, tmp_path: Path) -> None:
    body = framework.request["body"].encode()
    head = f"POST /invocations HTTP/1.1\r\nContent-Type: {framework.request['content_type']}\r\n"
    with serving(framework, tmp_path) as server, server.connect() as busy, server.connect() as idle:
        idle.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        assert idle.recv(65536)
        busy.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        idle.sendall(b"GET /ping HTTP/1.1\r\n\r\n")  # answered after the head above was read
        assert idle.recv(65536)
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(server.child)], check=True)
        assert idle.recv(65536) == b""
        busy.sendall(body)
        received = b"".join(iter(lambda: busy.recv(65536), b""))
        assert received.endswith(framework.request["answer"].encode())
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"no model at all", b"\0" * 1000])
def test_a_model_that_does_not_load_says_so_last(
    framework: Framework, tmp_path: Path, content: bytes
) -> None:
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    name = next(path.name for path in framework.model_dir.iterdir() if path.is_file())
    (model_dir / name).write_bytes(content)
    process = launch(framework, model_dir, tmp_path)
    _, errors = process.communicate(PATIENCE_S)
    assert process.wait(PATIENCE_S) == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("model did not load: ")
    assert name in last
    assert not (tmp_path / "http.sock").exists()


def test_an_empty_model_directory_says_so(framework: Framework, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    process = launch(framework, tmp_path / "model", tmp_path)
    _, errors = process.communicate(PATIENCE_S)
    assert process.wait(PATIENCE_S) == 1
    assert errors.decode().splitlines()[-1].startswith("model did not load: the model archive has no ")


@pytest.mark.parametrize("listen", ["unix:/nowhere/http.sock", "http.sock", "tcp:127.0.0.1"])
def test_an_address_that_cannot_be_used_says_so(framework: Framework, tmp_path: Path, listen: str) -> None:
    process = launch(framework, framework.model_dir, tmp_path, listen=listen)
    _, errors = process.communicate(PATIENCE_S)
    assert process.wait(PATIENCE_S) == 1
    assert errors.decode().splitlines()[-1].startswith("server did not start: cannot listen at ")


def test_a_client_that_stops_reading_does_not_stop_the_server(framework: Framework, tmp_path: Path) -> None:
    with serving(framework, tmp_path) as server, server.connect() as deaf, server.connect() as other:
        deaf.setblocking(False)
        request = b"GET /execution-parameters HTTP/1.1\r\n\r\n" * 100
        while select.select([], [deaf], [], 0)[1]:
            try:
                deaf.send(request)
            except BlockingIOError:
                break
            other.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
            assert other.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
