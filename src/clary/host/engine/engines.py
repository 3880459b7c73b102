"""Which container engine there is: the setting's, else the usual sockets, else Podman started for the purpose.

Podman needs no service of its own to run: where it is installed and nothing answers, a service is started at a socket
below the data directory when it is first needed. It ends by itself a while after its last call; containers stay.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.host.engine.api import EngineAway, EngineClient, EngineError
from clary.host.engine.creation import Abilities, abilities

FIND_TIMEOUT_S = 20.0
SHOW_TIMEOUT_S = 5.0
"""For people, who do not wait long for an engine that hangs."""

START_TIMEOUT_S = 60.0
IDLE_S = 60
USUAL = ("/var/run/docker.sock", "/run/podman/podman.sock")
HOW_TO_INSTALL = (
    "install Podman (apt-get install podman runc) or Docker on this machine, or name its socket in the setting "
    "container_engine"
)


class NoEngine(Exception):
    """There is none, or it does not answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Engine:
    client: EngineClient
    abilities: Abilities

    @property
    def summary(self) -> str:
        rights = ", rootless" if self.abilities.rootless else ""
        return f"{self.abilities.name}{rights} at {self.client.path}"


class Engines:
    """Finds the engine each time it is needed, since it may have been stopped or installed meanwhile. Thread-safe."""

    def __init__(
        self,
        wanted: str,
        environ: Mapping[str, str],
        own_socket: Path,
        start_podman: Callable[[Path], None] | None = None,
        usual: Sequence[str] = USUAL,
    ) -> None:
        self._usual = usual
        self._wanted = wanted
        self._environ = environ
        self._own = own_socket
        self._start_podman = start_podman or (lambda socket: _start_podman(socket, environ))
        self._lock = threading.Lock()

    def get(self) -> Engine:
        """The engine, started where that is possible. Raises `NoEngine`."""
        if (found := self.running()) is not None:
            return found
        if self._wanted == "none":
            raise NoEngine("the setting container_engine is none")
        if self._wanted != "auto":
            raise NoEngine(
                f"no container engine answers at {_path(self._wanted)} (the setting container_engine)"
            )
        if not (podman := shutil.which("podman", path=self._environ.get("PATH"))):
            raise NoEngine(f"there is no container engine: {HOW_TO_INSTALL}")
        with self._lock:
            return self._started(podman)

    def running(self, within_s: float = FIND_TIMEOUT_S) -> Engine | None:
        """The engine if one answers already; starts nothing."""
        for path in self._candidates():
            if (found := _engine_at(path, within_s)) is not None:
                return found
        return None

    @property
    def summary(self) -> str:
        """For people: which, or why none."""
        if (found := self.running(SHOW_TIMEOUT_S)) is not None:
            return found.summary
        if self._wanted == "auto" and (podman := shutil.which("podman", path=self._environ.get("PATH"))):
            return f"{podman}, whose service is started when an image of your own needs it"
        if self._wanted not in ("auto", "none"):
            return (
                f"none answers at {_path(self._wanted)}; running containers go on, and no new one can start"
            )
        return "none" if self._wanted == "none" else f"none: {HOW_TO_INSTALL}"

    def _candidates(self) -> list[str]:
        if self._wanted == "none":
            return []
        if self._wanted != "auto":
            return [_path(self._wanted)]
        named = self._environ.get("DOCKER_HOST", "")
        if named:
            return [_path(named)] if named.startswith("unix://") else []
        own = self._environ.get("XDG_RUNTIME_DIR", "")
        users = [f"{own}/docker.sock", f"{own}/podman/podman.sock"] if own else []
        return [path for path in (*users, *self._usual, str(self._own)) if os.access(path, os.W_OK)]

    def _started(self, podman: str) -> Engine:
        if (found := self.running()) is None:
            self._start_podman(self._own)
            deadline = time.monotonic() + START_TIMEOUT_S
            while (found := _engine_at(str(self._own))) is None:
                if time.monotonic() > deadline:
                    raise NoEngine(f"the service of {podman} did not come up; see {_log_of(self._own)}")
                time.sleep(0.02)
        return found


def _engine_at(path: str, within_s: float = FIND_TIMEOUT_S) -> Engine | None:
    client = EngineClient(path)
    try:
        return Engine(client, abilities(client.info(within_s)))
    except (EngineAway, EngineError):
        return None


def _path(named: str) -> str:
    return named.removeprefix("unix://")


def _log_of(socket: Path) -> Path:
    return socket.with_suffix(".log")


def _start_podman(socket: Path, environ: Mapping[str, str]) -> None:
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    with _log_of(socket).open("ab") as log:
        subprocess.Popen(
            ["podman", "system", "service", f"--time={IDLE_S}", f"unix://{socket}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=socket.parent,  # what looks after a container (conmon) writes a file here when memory runs out
            env=dict(environ),
            start_new_session=True,
        )
