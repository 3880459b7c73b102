"""The supervisor itself: owns the lock, the socket and the processes, and restarts what dies."""

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from types import FrameType

from clary import credentials
from clary.gateway import door
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings, dump, read
from clary.supervisor import room
from clary.supervisor.ending import stop_everything
from clary.supervisor.ground import (
    DEFAULT_PORT,
    CannotStart,
    allow_many_files,
    bind,
    ensure_certificates,
    lock_data_directory,
    make_directories,
    write_whole,
)
from clary.supervisor.names import (
    GATEWAY,
    command,
    find_process,
    locked,
    names_of,
    process_names,
    roles,
    settings_path,
)
from clary.supervisor.rolling import LOOK_S, Rolling, Watched, retire, retires

log = logging.getLogger(__name__)

ROLL = signal.SIGUSR1
"""Asks for new processes. Not SIGHUP: a terminal that closes sends that one, and then nobody asked for anything."""

LONGEST_RESTART_DELAY_S = 10.0
STEADY_AFTER_S = 10.0  # a process that lived this long is restarted at once when it dies


class Supervisor:
    """Owns the data directory's lock, the listening socket and the processes."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._wanted = settings
        self._say = say
        self._stopping = False
        self._watched = {role: Watched(role, role) for role in roles(settings)}
        self._leaving: list[Watched] = []
        self._rolling: Rolling | None = None
        self._is_roll_wanted = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.settings = settings

    def start(self) -> bool:
        """Starts or adopts everything; True when something was adopted. Raises AlreadyRuns, CannotStart."""
        for number in (signal.SIGINT, signal.SIGTERM, ROLL):
            signal.signal(number, self._on_signal)
        allow_many_files()
        make_directories(self._wanted)
        with _on_a_disk(self._wanted):
            self._lock = lock_data_directory(self._wanted)
        try:
            with _on_a_disk(self._wanted):
                self._make_room()
                # First: who stops the server from now on stops this one, too.
                processes.record(self._wanted.run_dir / "supervisor.pid.json")
        except CannotStart:
            os.close(self._lock)
            raise
        self._keep_settings_in_force()
        adopted = self._adopt()
        self.socket = self._socket_of_a_gateway() if adopted else None
        if self.socket is None:
            self.socket = bind(self._wanted)
        self.settings = replace(self._wanted, port=self.socket.getsockname()[1])
        try:
            with _on_a_disk(self.settings):
                credentials.ensure(self.settings)
                ensure_certificates(self.settings)
                write_whole(settings_path(self.settings), dump(self.settings))
        except CannotStart:
            self.socket.close()
            raise
        for watched in self._watched.values():
            if watched.identity is None:
                self._launch(watched)
        return adopted

    def run(self) -> None:
        """Restarts what dies until SIGINT or SIGTERM."""
        while not self._stopping:
            self.tend()

    def tend(self, timeout_s: float | None = None) -> None:
        """Waits until a process ends or a restart is due, at most `timeout_s`, and does what is to be done."""
        self._wait_for_an_event(timeout_s)
        self._reap()
        self._restart_due()
        self._roll()

    @property
    def is_stopping(self) -> bool:
        """Whether a signal asked for the end."""
        return self._stopping

    def stop(self) -> None:
        """Ends every process and instance; the data stays, unless it was ephemeral."""
        self._stopping = True
        if getattr(self, "socket", None) is not None and self.socket is not None:
            self.socket.close()
        stop_everything(self.settings)
        self._reap()
        if self.settings.ephemeral:
            shutil.rmtree(self.settings.data_dir, ignore_errors=True)

    @property
    def restarts(self) -> dict[str, int]:
        return {name: watched.restarts for name, watched in self._watched.items() if watched.restarts}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == ROLL:
            self._is_roll_wanted = True
        else:
            self._stopping = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _make_room(self) -> None:
        """On a full disk. Where processes still run they are adopted all the same: they need no room to go on."""
        if not room.lacking(self._wanted):
            return
        if find_process(self._wanted, "control") is None:
            room.give_back(self._wanted)
        if (lacking := room.lacking(self._wanted)) and _settings_in_force(self._wanted) is None:
            raise CannotStart(f"{lacking}, then try again")

    def _keep_settings_in_force(self) -> None:
        """Processes that still run go on with the settings they have, so what joins them gets the same."""
        found = _settings_in_force(self._wanted)
        if found is None:
            return
        for name, asked in _differences(self._wanted, found).items():
            self._say(
                f"{name} stays {getattr(found, name)!r} and does not become {asked!r}: its processes still run. "
                "To change it: clary down, then clary up"
            )
        self._wanted = found
        self._watched = {role: Watched(role, role) for role in roles(found)}

    def _adopt(self) -> bool:
        """Where a supervisor was killed while it replaced a gateway there are two. One that retires already accepts
        nothing, so the other one stays; else either will do. The one that is left over retires."""
        for watched in self._watched.values():
            found = [
                (name, find_process(self._wanted, name)) for name in names_of(watched.role, self._wanted)
            ]
            there = [(name, identity) for name, identity in found if identity is not None]
            if len(there) > 1:
                there.sort(key=lambda one: retires(self._wanted, one[0]))
            for name, identity in there:
                if watched.identity is None:
                    watched.name = name
                    self._watch(watched, identity)
                else:
                    self._let_retire(Watched(watched.role, name), identity)
        return any(watched.identity for watched in self._watched.values())

    def _let_retire(self, spare: Watched, identity: ProcessIdentity) -> None:
        self._watch(spare, identity)
        if spare.identity is not None:
            retire(self._wanted, spare.name, identity)
            self._leaving.append(spare)

    def _socket_of_a_gateway(self) -> socket.socket | None:
        for watched in self._watched.values():
            if watched.identity is None or not watched.role.startswith(GATEWAY):
                continue
            number = int(watched.name.removeprefix(GATEWAY))
            try:
                return door.take_socket(self._wanted.gateway_socket(number))
            except OSError as error:
                log.warning(
                    "gateway did not hand over its socket", extra={"number": number, "error": str(error)}
                )
        return None

    def _launch(self, watched: Watched) -> None:
        """Starts the process; where the machine refuses (a full disk, too many processes) it is tried again."""
        watched.started_at = time.monotonic()
        try:
            child = self._spawn(watched.name)
        except BlockingIOError:  # a last thread of it is ending, or it runs and nobody knows its number
            self._note_death(watched, "cannot start yet, the one before still holds its lock")
            return
        except OSError as error:
            self._note_death(watched, f"could not be started: {error.strerror}")
            return
        identity = processes.identify(child.pid)
        if identity is None:
            self._note_death(watched)
            return
        try:
            processes.record(self.settings.run_dir / f"{watched.name}.pid.json", identity)
        except OSError as error:  # nobody could find it, and so nobody could end it
            child.kill()
            child.wait()
            self._note_death(watched, f"could not be started: {error.strerror}")
            return
        self._watch(watched, identity)

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        assert self.socket is not None, "the socket is bound before anything starts"
        with (
            (self.settings.server_log_dir / f"{name}.log").open("ab") as output,
            locked(self.settings, name) as lock,
        ):
            return subprocess.Popen(
                command(name, self.settings, self.socket.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock, self.socket.fileno()] if name.startswith(GATEWAY) else [lock],
                start_new_session=True,
                cwd="/",
            )

    def _watch(self, watched: Watched, identity: ProcessIdentity) -> None:
        try:
            watched.pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            self._note_death(watched)
            return
        watched.identity = identity

    def _wait_for_an_event(self, timeout_s: float | None) -> None:
        if self._rolling is not None:
            timeout_s = LOOK_S if timeout_s is None else min(timeout_s, LOOK_S)
        known = [*self._watched.values(), *self._leaving]
        descriptors = [w.pidfd for w in known if w.identity is not None]
        due = [w.due_at for w in self._watched.values() if w.identity is None]
        timeout = min(
            [*(max(0.0, at - time.monotonic()) for at in due), *([] if timeout_s is None else [timeout_s])],
            default=None,
        )
        ready, _, _ = select.select([*descriptors, self._wake_read], [], [], timeout)
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    def _reap(self) -> None:
        for watched in self._watched.values():
            if self._has_ended(watched):
                self._note_death(watched)
        self._leaving = [watched for watched in self._leaving if not self._has_ended(watched)]

    def _has_ended(self, watched: Watched) -> bool:
        """Whether its process ended since the last look. Then nothing of it is kept."""
        if watched.identity is None or processes.is_alive(watched.identity):
            return False
        with contextlib.suppress(ChildProcessError):  # an adopted process is nobody's child here
            os.waitpid(watched.identity.pid, os.WNOHANG)
        os.close(watched.pidfd)
        watched.identity, watched.pidfd = None, -1
        return True

    def _note_death(self, watched: Watched, how: str = "ended") -> None:
        if watched.is_replaced:
            watched.is_replaced, watched.failures, watched.due_at = False, 0, 0.0
            self._say(f"{watched.name} ended and is started again, as it was asked to")
            return
        lived = time.monotonic() - watched.started_at
        watched.failures = 0 if lived >= STEADY_AFTER_S else watched.failures + 1
        delay = 0.0 if watched.failures <= 1 else min(LONGEST_RESTART_DELAY_S, 0.1 * 2**watched.failures)
        watched.due_at = time.monotonic() + delay
        if not self._stopping:
            watched.restarts += 1
            where = self.settings.server_log_dir / f"{watched.name}.log"
            lacking = room.lacking(self.settings)
            why = f"; {lacking}" if lacking else ""
            self._say(f"{watched.name} {how}; starting it again (its log: {where}){why}")

    def _restart_due(self) -> None:
        if self._stopping:
            return
        for watched in self._watched.values():
            if watched.identity is None and watched.due_at <= time.monotonic():
                self._launch(watched)

    def _roll(self) -> None:
        """Replaces every process when a signal asked for it, one step at a time."""
        if self._stopping:
            return
        if self._rolling is None and self._is_roll_wanted and not self._leaving:
            self._is_roll_wanted = False
            self._rolling = Rolling(
                self.settings, list(self._watched.values()), self._launch, self._leaving.append, self._say
            )
        if self._rolling is not None and self._rolling.is_done():
            self._rolling = None


@contextlib.contextmanager
def _on_a_disk(settings: Settings) -> Iterator[None]:
    """What a start must write down. Raises CannotStart."""
    try:
        yield
    except OSError as error:
        raise CannotStart(
            f"{settings.data_dir} cannot be written: {error.strerror}. Free some space, then try again."
        ) from error


def _settings_in_force(wanted: Settings) -> Settings | None:
    """The settings of the processes that still run on the data directory; None when none runs."""
    try:
        found = read(settings_path(wanted))
    except (OSError, ValueError, TypeError):  # none, cut off, or of a version that had other settings
        return None
    runs = any(find_process(found, name) for name in process_names(found))
    return found if runs else None


def _differences(wanted: Settings, found: Settings) -> dict[str, object]:
    """What is asked for and not in force. A port that was left open, or to the default, is no wish."""
    asked = {
        each.name: getattr(wanted, each.name)
        for each in fields(Settings)
        if getattr(wanted, each.name) != getattr(found, each.name)
    }
    if wanted.port in (0, DEFAULT_PORT):
        asked.pop("port", None)
    return asked
