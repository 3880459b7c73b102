"""A container engine of the tests' own, and images made of this machine's files: no registry, nothing downloaded.

Podman's service runs at a socket in a temporary directory, with storage of its own beside it.
"""

import http.client
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from clary.domain.instances import InstanceSpec
from clary.host.engine.api import EngineClient, EngineError, UnixConnection
from hosting.harness import toy_spec

PROGRAM = Path(__file__).parent / "program.py"
IMAGE = "my-model:latest"
PATIENCE_S = 300.0
_LAZY = "encodings.idna,encodings.latin_1,encodings.utf_8_sig,email.parser,http.client"


def why_none() -> str:
    """Why tests with containers are left out here; nothing when they are not."""
    if not shutil.which("podman"):
        return "there is no container engine on this machine: apt-get install podman runc"
    if os.geteuid() != 0:
        return "the tests' own container engine needs root"
    return ""


def container_spec(number: int, do: str = "serve", **changes: object) -> InstanceSpec:
    """An instance of the tests' image."""
    return toy_spec(number, **{"image": IMAGE, "environment": {"DO": do}, **changes})  # type: ignore[arg-type]


@dataclass
class TestEngine:
    """A running engine. Only its service can be stopped and started: containers go on meanwhile."""

    __test__ = False

    root: Path
    _service: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def socket(self) -> Path:
        return self.root / "e.sock"

    @property
    def client(self) -> EngineClient:
        return EngineClient(str(self.socket))

    def start(self) -> None:
        with (self.root / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                self._podman("system", "service", "--time=0", f"unix://{self.socket}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,  # conmon leaves a file here when a container runs out of memory
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert time.monotonic() < deadline, (self.root / "service.log").read_text()
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._service is not None:
            self._service.send_signal(number)
            self._service.wait(PATIENCE_S)
            self._service = None
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        subprocess.run(self._podman("rm", "--all", "--force", "--time=0"), capture_output=True, check=False)
        subprocess.run(self._podman("rmi", "--all", "--force"), capture_output=True, check=False)
        subprocess.run(["umount", str(self.root / "s/overlay")], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def make_image(self, name: str, root: bytes, *changes: str) -> None:
        """Imports a root file system. `changes` are lines of a Dockerfile: LABEL, ENTRYPOINT, USER …"""
        query = urlencode({"fromSrc": "-", "repo": name, "changes": changes}, doseq=True)
        connection = UnixConnection(str(self.socket), PATIENCE_S)
        try:
            connection.request("POST", f"/images/create?{query}", root, {"Content-Type": "application/x-tar"})
            response: http.client.HTTPResponse = connection.getresponse()
            assert response.status == 200, response.read()
            assert b"error" not in response.read()
        finally:
            connection.close()

    def containers(self) -> Sequence[str]:
        return [name for each in self.client.labelled() for name in each["Names"]]

    def until_empty(self) -> None:
        """What could not be removed at once, because the engine had no time for it, is removed soon after."""
        deadline = time.monotonic() + PATIENCE_S
        while left := self.containers():
            assert time.monotonic() < deadline, f"these were left: {left}"
            time.sleep(0.05)

    def _podman(self, *arguments: str) -> list[str]:
        return ["podman", "--root", str(self.root / "s"), "--runroot", str(self.root / "r"), *arguments]

    def _answers(self) -> bool:
        try:
            self.client.info()
        except EngineError:
            return False
        return True


@contextmanager
def running_engine() -> Iterator[TestEngine]:
    """An engine with the tests' image in it."""
    engine = TestEngine(Path(tempfile.mkdtemp(prefix="ce-")))
    try:
        engine.start()
        engine.make_image(IMAGE, root_with(PROGRAM.read_text()), "ENV PATH=/usr/bin")
        yield engine
    finally:
        engine.close()


def root_with(program: str) -> bytes:
    """A root file system with this machine's Python, the modules that the program needs, and the program as `serve`."""
    python = os.path.realpath(sys.executable)
    listing = (
        f"import sys, {_LAZY}; exec(compile(sys.argv[1], 'serve', 'exec'), {{'__name__': 'listed'}});"
        "print(*{m.__file__ for m in [*sys.modules.values()] if getattr(m, '__file__', None)})"
    )
    command = [python, "-I", "-S", "-c", listing, program]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = found.stdout.split()
    files = {python, *modules}
    for path in [python, *(path for path in modules if path.endswith(".so"))]:
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        files |= set(re.findall(r"(/\S+) \(0x", linked))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(files):
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"))
        for folder in ("tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        _add(tar, "usr/bin/serve", f"#!{python} -IS\n{program}".encode(), 0o755)
    return buffer.getvalue()


def empty_root() -> bytes:
    """One without any program."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "nothing", b"", 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
