"""What instances use, read from /proc, and by that whether one is over its memory.

Where no cgroup does it, this is the limit: the resident memory of the instance and all it started is looked at
every second. The cheap figure counts pages once a process, so an instance with many forks would look too big;
before anybody is ended, the exact share is read.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of an instance with all its processes; its minder does not count."""

    resident_bytes: int
    cpu_s: dict[int, float]  # by process, so that one that ended does not count backwards


def usage(minder: int | None, *others: int) -> Usage:
    """What the processes below a minder use now, and `others` with those below them."""
    resident = 0
    cpu: dict[int, float] = {}
    for pid in _all_of(minder, others):
        try:
            resident += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()
        cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return Usage(resident, cpu)


def below(minder: int | None, *others: int) -> list[int]:
    """All processes of an instance."""
    return _all_of(minder, others)


def exact_resident_bytes(minder: int | None, *others: int) -> int:
    """The same memory with shared pages counted in shares."""
    return sum(_proportional(pid) for pid in _all_of(minder, others))


def _all_of(minder: int | None, others: Iterable[int]) -> list[int]:
    own = [] if minder is None else descendants(minder)
    return [*own, *(pid for other in others for pid in (other, *descendants(other)))]


def descendants(pid: int) -> list[int]:
    """All processes below this one, parents before children."""
    found: list[int] = []
    pending = [pid]
    while pending:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def members_of_session(session: int) -> list[int]:
    """Processes of a session whose leader may be gone: what a killed minder leaves behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat[stat.rindex(b")") + 2 :].split()[3]) == session:
            found.append(int(entry.name))
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_bytes().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while it was looked at
    return found


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0
