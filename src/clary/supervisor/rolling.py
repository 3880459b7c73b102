"""One process after another replaced by its successor, while clients notice nothing.

Control and host end first, one at a time: endpoints serve without them. A gateway's successor starts beside it, under
the gateway's other name, and accepts from the same socket before the old one is asked to retire: so connections are
never refused, and those that are open get their answers. What cannot be replaced stays as it is.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from clary.gateway import door
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings
from clary.supervisor.names import GATEWAY, names_of

READY_WITHIN_S = 60.0
LOOK_S = 0.05
_TRY_AGAIN_S = 0.5
_PATIENCE_S = 1.0


@dataclass(slots=True)
class Watched:
    """One role under supervision: the name it runs under now, and what is known of its process."""

    role: str
    name: str
    identity: ProcessIdentity | None = None
    pidfd: int = -1
    started_at: float = 0.0
    failures: int = 0
    due_at: float = 0.0
    restarts: int = field(default=0)
    is_replaced: bool = False  # asked to end: its death is no failure


class Rolling:
    """`launch` starts a process and fills in what is known of it; `leave` takes a process that ends by itself."""

    def __init__(
        self,
        settings: Settings,
        watched: list[Watched],
        launch: Callable[[Watched], None],
        leave: Callable[[Watched], None],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._launch = launch
        self._leave = leave
        self._say = say
        self._steps = self._run(watched)

    def is_done(self) -> bool:
        """Goes one step further; to be called every `LOOK_S`."""
        return next(self._steps, None) is None

    def _run(self, watched: list[Watched]) -> Iterator[bool]:
        for each in watched:
            yield from self._gateway(each) if each.role.startswith(GATEWAY) else self._other(each)
        self._say("every process was replaced")

    def _other(self, watched: Watched) -> Iterator[bool]:
        """The supervisor starts it again when it has ended."""
        old = watched.identity
        watched.is_replaced = old is not None
        processes.signal(old, signal.SIGTERM)
        deadline = time.monotonic() + READY_WITHIN_S + self._settings.stop_grace_s
        while watched.identity in (old, None) or not self._answers(watched.name):
            if time.monotonic() > deadline:
                self._say(f"{watched.name} is not back yet; going on with the next")
                return
            yield True

    def _gateway(self, watched: Watched) -> Iterator[bool]:
        first, second = names_of(watched.role, self._settings)
        successor = Watched(watched.role, second if watched.name == first else first)
        deadline = time.monotonic() + READY_WITHIN_S
        next_try = time.monotonic()
        while not self._is_ready(successor):
            if time.monotonic() > deadline:
                self._say(f"{watched.name} stays: its successor {successor.name} did not become ready")
                if successor.identity is not None:
                    processes.signal(successor.identity, signal.SIGTERM)
                    self._leave(successor)
                return
            # The one that had this name before may still be ending, to its last thread.
            if successor.identity is None and time.monotonic() >= next_try:
                self._launch(successor)
                next_try = time.monotonic() + _TRY_AGAIN_S
            yield True
        self._retire(watched, successor)
        yield True

    def _retire(self, watched: Watched, successor: Watched) -> None:
        old = Watched(watched.role, watched.name, watched.identity, watched.pidfd)
        watched.name, watched.identity, watched.pidfd = successor.name, successor.identity, successor.pidfd
        watched.started_at, watched.failures = successor.started_at, 0
        if old.identity is not None:
            retire(self._settings, old.name, old.identity)
            self._leave(old)

    def _is_ready(self, successor: Watched) -> bool:
        if not processes.is_alive(successor.identity):
            if successor.identity is not None:
                os.close(successor.pidfd)
            successor.identity, successor.pidfd = None, -1
            return False
        with suppress(OSError):
            return not door.ask_state(self._settings.gateway_socket(_number(successor.name))).is_stopping
        return False

    def _answers(self, name: str) -> bool:
        path = {"control": self._settings.control_socket, "host": self._settings.host_socket}[name]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE_S)  # one that hangs has a full queue, and connecting would wait for it
            try:
                sock.connect(str(path))
            except OSError:
                return False
        return True


def retire(settings: Settings, name: str, identity: ProcessIdentity) -> None:
    """Has a gateway go without a client noticing; another one accepts already."""
    try:
        door.ask_to_stop(settings.gateway_socket(_number(name)))
    except OSError:  # it hangs, or ended just now
        processes.signal(identity, signal.SIGTERM)


def retires(settings: Settings, name: str) -> bool:
    """Whether the gateway takes no new connections any more."""
    with suppress(OSError):
        return door.ask_state(settings.gateway_socket(_number(name))).is_stopping
    return False


def _number(name: str) -> int:
    return int(name.removeprefix(GATEWAY))
