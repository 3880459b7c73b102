"""What must stand before any process starts: limits, directories, the lock, the port, certificates."""

import fcntl
import os
import resource
import socket
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from clary import certificates
from clary.settings import Settings

BACKLOG = 4096
DEFAULT_PORT = next(each.default for each in fields(Settings) if each.name == "port")
MOST_FILES = 65_536


class AlreadyRuns(Exception):
    """Another supervisor holds this data directory."""


class CannotStart(Exception):
    """The server could not be started; the message says why and what to do."""


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


def ensure_certificates(settings: Settings) -> None:
    """Once, and again when they are about to expire. The library that makes them is loaded only then."""
    now = datetime.now(UTC)
    if not certificates.are_good(settings, now):
        from clary import authority

        authority.make(settings, now)


def write_whole(path: Path, text: str) -> None:
    """Puts the file in place whole, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
