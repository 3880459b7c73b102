"""Which of Clary's processes run: pid files that cannot be fooled by a pid used again.

A process writes `{"pid": …, "start_time": …}`; the start time (field 22 of /proc/PID/stat, in clock ticks since
boot) makes the pair unique until the machine restarts. Whoever wants to know whether it still runs, or to end it,
compares both.
"""

import os
import select
import signal as signals
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clary.links.decoding import decode_json


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    start_time: int


def start_time(pid: int) -> int | None:
    """When the process began, in ticks since boot; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def age_s(identity: ProcessIdentity) -> float:
    """Seconds since the process began, whether it still runs or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_time / os.sysconf("SC_CLK_TCK")


def current() -> ProcessIdentity:
    pid = os.getpid()
    began = start_time(pid)
    assert began is not None, "a running process has a start time"
    return ProcessIdentity(pid, began)


def identify(pid: int) -> ProcessIdentity | None:
    began = start_time(pid)
    return None if began is None else ProcessIdentity(pid, began)


def record(path: Path, identity: ProcessIdentity | None = None) -> ProcessIdentity:
    """Writes the pid file of `identity` (this process), whole or not at all."""
    identity = identity or current()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.encode(identity))
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return identity


def read(path: Path) -> ProcessIdentity | None:
    """The identity in a pid file; None when there is no such file or it holds no identity."""
    try:
        return decode_json(path.read_bytes(), ProcessIdentity)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def is_alive(identity: ProcessIdentity | None) -> bool:
    return identity is not None and start_time(identity.pid) == identity.start_time


def alive(path: Path) -> ProcessIdentity | None:
    """The process a pid file names, if it still runs."""
    identity = read(path)
    return identity if is_alive(identity) else None


def heeds(identity: ProcessIdentity, number: signals.Signals) -> bool:
    """Whether the process has a handler for this signal. Many end where they have none."""
    try:
        status = Path(f"/proc/{identity.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def signal(identity: ProcessIdentity | None, number: signals.Signals) -> bool:
    """Sends a signal to exactly this process; False when it is gone. A pidfd closes the gap between check and kill."""
    if identity is None:
        return False
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            signals.pidfd_send_signal(descriptor, number)
            return True
        return False
    finally:
        os.close(descriptor)


def wait_gone(identities: Iterable[ProcessIdentity], timeout_s: float) -> list[ProcessIdentity]:
    """Waits until all have ended, at most `timeout_s`; those that still run."""
    left = [identity for identity in identities if is_alive(identity)]
    deadline = time.monotonic() + timeout_s
    while left and (rest := deadline - time.monotonic()) > 0:
        try:
            descriptor = os.pidfd_open(left[0].pid)
        except ProcessLookupError:
            left = [identity for identity in left if is_alive(identity)]
            continue
        try:
            poll = select.poll()  # unlike select, without a highest descriptor
            poll.register(descriptor, select.POLLIN)
            poll.poll(min(rest, 0.5) * 1000)
        finally:
            os.close(descriptor)
        left = [identity for identity in left if is_alive(identity)]
    return left


def memory_bytes(identity: ProcessIdentity) -> int:
    """The memory this process takes: its share of shared pages included (PSS); 0 when it has gone."""
    try:
        lines = Path(f"/proc/{identity.pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
