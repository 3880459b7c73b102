"""`clary up`: binds the port once, starts the processes, restarts what dies, stops them in the right order.

The processes live in sessions of their own and do not need the supervisor: if it is killed they go on, and the
next one adopts them by their pid files and gets the listening socket back from a gateway. `stop_everything`
works without any supervisor, from the pid files alone.
"""

import contextlib
import fcntl
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from clary import certificates, credentials
from clary.gateway import door
from clary.links import processes, stopping
from clary.links.processes import ProcessIdentity
from clary.settings import Settings, dump, read

log = logging.getLogger(__name__)

BACKLOG = 4096
DEFAULT_PORT = next(each.default for each in fields(Settings) if each.name == "port")
LONGEST_RESTART_DELAY_S = 10.0
MOST_FILES = 65_536
RECORDED_WITHIN_S = 10.0  # a process that was started has its pid file by then
STEADY_AFTER_S = 10.0  # a process that lived this long is restarted at once when it dies


class AlreadyRuns(Exception):
    """Another supervisor holds this data directory."""


class CannotStart(Exception):
    """The server could not be started; the message says why and what to do."""


@dataclass(slots=True)
class Watched:
    """One process under supervision: how to start it, and what is known of the one that runs."""

    name: str
    identity: ProcessIdentity | None = None
    pidfd: int = -1
    started_at: float = 0.0
    failures: int = 0
    due_at: float = 0.0
    restarts: int = field(default=0)


class Supervisor:
    """Owns the data directory's lock, the listening socket and the processes."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._wanted = settings
        self._say = say
        self._stopping = False
        self._watched = {name: Watched(name) for name in process_names(settings)}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.settings = settings

    def start(self) -> bool:
        """Starts or adopts everything; True when something was adopted. Raises AlreadyRuns, CannotStart."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        allow_many_files()
        make_directories(self._wanted)
        self._lock = lock_data_directory(self._wanted)
        self._keep_settings_in_force()
        adopted = self._adopt()
        self.socket = self._socket_of_a_gateway() if adopted else None
        if self.socket is None:
            self.socket = bind(self._wanted)
        self.settings = replace(self._wanted, port=self.socket.getsockname()[1])
        try:
            credentials.ensure(self.settings)
            _ensure_certificates(self.settings)
            _write_whole(settings_path(self.settings), dump(self.settings))
            processes.record(self.settings.run_dir / "supervisor.pid.json")
        except OSError as error:
            self.socket.close()
            raise CannotStart(
                f"{self.settings.data_dir} cannot be written: {error.strerror}. Free some space, then try again."
            ) from error
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
        self._stopping = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

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
        self._watched = {name: Watched(name) for name in process_names(found)}

    def _adopt(self) -> bool:
        for watched in self._watched.values():
            identity = find_process(self._wanted, watched.name)
            if identity is not None:
                self._watch(watched, identity)
        return any(watched.identity for watched in self._watched.values())

    def _socket_of_a_gateway(self) -> socket.socket | None:
        for number in range(self._wanted.gateways):
            if self._watched[f"gateway-{number}"].identity is None:
                continue
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
            _locked(self.settings, name) as lock,
        ):
            return subprocess.Popen(
                command(name, self.settings, self.socket.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock, self.socket.fileno()] if name.startswith("gateway-") else [lock],
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
        descriptors = [w.pidfd for w in self._watched.values() if w.identity is not None]
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
            if watched.identity is not None and not processes.is_alive(watched.identity):
                with contextlib.suppress(ChildProcessError):  # an adopted process is nobody's child here
                    os.waitpid(watched.identity.pid, os.WNOHANG)
                os.close(watched.pidfd)
                watched.identity, watched.pidfd = None, -1
                self._note_death(watched)

    def _note_death(self, watched: Watched, how: str = "ended") -> None:
        lived = time.monotonic() - watched.started_at
        watched.failures = 0 if lived >= STEADY_AFTER_S else watched.failures + 1
        delay = 0.0 if watched.failures <= 1 else min(LONGEST_RESTART_DELAY_S, 0.1 * 2**watched.failures)
        watched.due_at = time.monotonic() + delay
        if not self._stopping:
            watched.restarts += 1
            where = self.settings.server_log_dir / f"{watched.name}.log"
            self._say(f"{watched.name} {how}; starting it again (its log: {where})")

    def _restart_due(self) -> None:
        if self._stopping:
            return
        for watched in self._watched.values():
            if watched.identity is None and watched.due_at <= time.monotonic():
                self._launch(watched)


def _ensure_certificates(settings: Settings) -> None:
    """Once, and again when they are about to expire. The library that makes them is loaded only then."""
    now = datetime.now(UTC)
    if not certificates.are_good(settings, now):
        from clary import authority

        authority.make(settings, now)


def process_names(settings: Settings) -> list[str]:
    return ["control", "host", *(f"gateway-{number}" for number in range(settings.gateways))]


def settings_path(settings: Settings) -> Path:
    """The settings in force, with the port really bound: what every other command reads."""
    return settings.run_dir / "settings.json"


def command(name: str, settings: Settings, listen_fd: int) -> list[str]:
    """How a process is started. `-P`: nothing beside the current directory is ever imported."""
    options = ["--settings", str(settings_path(settings))]
    if name.startswith("gateway-"):
        number = name.removeprefix("gateway-")
        return [
            sys.executable,
            "-P",
            "-m",
            "clary.gateway",
            *options,
            "--number",
            number,
            "--listen-fd",
            str(listen_fd),
        ]
    module = {"control": "clary.main", "host": "clary.host"}[name]
    return [sys.executable, "-P", "-m", module, *options]


def find_process(settings: Settings, name: str) -> ProcessIdentity | None:
    """The process that runs under this name; None without one.

    One whose supervisor was killed just after starting it may not be on record yet. It holds its lock already,
    and writes its pid file itself.
    """
    path, deadline = settings.run_dir / f"{name}.pid.json", time.monotonic() + RECORDED_WITHIN_S
    while (identity := processes.alive(path)) is None and time.monotonic() < deadline:
        try:
            with _locked(settings, name):
                return None
        except BlockingIOError:
            time.sleep(0.02)
    return identity


@contextlib.contextmanager
def _locked(settings: Settings, name: str) -> Iterator[int]:
    """The lock of the process of this name. Who inherits the descriptor holds it until the end of his life.

    Raises BlockingIOError when there is such a process.
    """
    descriptor = os.open(settings.run_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def allow_many_files() -> None:
    """Raises the soft limit of open files, which the processes inherit: often it is 1,024, and a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def make_directories(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (
            settings.run_dir,
            settings.server_log_dir,
            settings.instances_dir,
            settings.logs_dir,
        ):
            directory.mkdir(mode=0o700, exist_ok=True)
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"{error.filename}: {error.strerror}. Choose another place with --data-dir."
        ) from error


def lock_data_directory(settings: Settings) -> int:
    """Takes the lock that one supervisor holds; the kernel gives it back however the process ends."""
    descriptor = os.open(settings.run_dir / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRuns(f"Clary already runs on {settings.data_dir}") from None
    return descriptor


def bind(settings: Settings) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"port {settings.port} of {settings.host} cannot be used: {error.strerror}. "
            "Choose another with --port (0: any free one)."
        ) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def stop_everything(settings: Settings) -> list[str]:
    """Ends the processes and every instance, whoever started them; the names of what had to be killed.

    The order matters: control first, so that nothing is started again; then the gateways, which finish what
    they have while the instances still answer; then the instances; the host last.
    """
    killed: list[str] = []
    killed += _end(settings, ["control"], settings.stop_grace_s)
    killed += _end(
        settings,
        [name for name in process_names(settings) if name.startswith("gateway-")],
        settings.stop_grace_s,
    )
    stopping.stop_instances(settings)
    killed += _end(settings, ["host"], settings.stop_grace_s)
    _clear_run_directory(settings)
    return killed


def _end(settings: Settings, names: list[str], grace_s: float) -> list[str]:
    found = {name: find_process(settings, name) for name in names}
    running = {name: identity for name, identity in found.items() if identity is not None}
    for identity in running.values():
        processes.signal(identity, signal.SIGTERM)
    stubborn = processes.wait_gone(running.values(), grace_s)
    for identity in stubborn:
        processes.signal(identity, signal.SIGKILL)
    processes.wait_gone(stubborn, 5.0)
    return [name for name, identity in running.items() if identity in stubborn]


def _clear_run_directory(settings: Settings) -> None:
    """Removes sockets and pid files; the routes stay, for the next start shows them to the gateways at once."""
    for pattern in ("*.sock", "*.pid.json", "settings.json"):
        for path in settings.run_dir.glob(pattern):
            path.unlink(missing_ok=True)


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


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
