"""What the server's processes are called, how each is started, and how one that runs is found."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings

GATEWAY = "gateway-"
RECORDED_WITHIN_S = 60.0  # a process that was started has its pid file by then, however busy the machine is


def roles(settings: Settings) -> list[str]:
    """What must run, each under its first name."""
    return ["control", "host", *(f"{GATEWAY}{number}" for number in range(settings.gateways))]


def names_of(role: str, settings: Settings) -> list[str]:
    """The names under which a role may run: a gateway has two, so that its successor can start beside it."""
    if not role.startswith(GATEWAY):
        return [role]
    return [role, f"{GATEWAY}{int(role.removeprefix(GATEWAY)) + settings.gateways}"]


def process_names(settings: Settings) -> list[str]:
    """Every name that a process of this server may have."""
    return [name for role in roles(settings) for name in names_of(role, settings)]


def settings_path(settings: Settings) -> Path:
    """The settings in force, with the port really bound: what every other command reads."""
    return settings.run_dir / "settings.json"


def command(name: str, settings: Settings, listen_fd: int) -> list[str]:
    """How a process is started. `-P`: nothing beside the current directory is ever imported."""
    options = ["--settings", str(settings_path(settings))]
    if name.startswith(GATEWAY):
        number = name.removeprefix(GATEWAY)
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
            with locked(settings, name):
                return None
        except BlockingIOError:
            time.sleep(0.02)
    return identity


@contextlib.contextmanager
def locked(settings: Settings, name: str) -> Iterator[int]:
    """The lock of the process of this name. Who inherits the descriptor holds it until the end of his life.

    Raises BlockingIOError when there is such a process.
    """
    descriptor = os.open(settings.run_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)
