"""Ends instances that fill the disk: over their own limit, or first to blame when the machine's last room is taken.

Four times a second the file system is asked how much is free, which costs nothing. Instances are looked at only when
that has fallen, when it is short, and once a minute; and for a fifth of the time at most (half of it while room is
short), however many files there are.

What others write fills the disk too: being short of room alone is nobody's guilt. Who is ended for it writes on in the
last room; or has written most in the minutes before, where instances and not others took it.

A limit on the number of files goes with that on bytes: as many as the usual file system of that size can hold. Without
it empty files would take every inode, and make this look endless.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.instances import Failure, InstanceId
from clary.host import disk_usage, failures, limits
from clary.host.disk_usage import Written
from clary.host.engine import notes
from clary.host.records import Instance

LOOK_S = 0.25
EVERY_S = 60.0
SHARE, SHARE_WHEN_SHORT = 0.2, 0.5
FALL_BYTES = 64 << 20
LATELY_S = 600.0
PART_TO_BLAME = 16
"""Of the reserve: who has written less than this part of it lately is not ended for it."""

PATIENCE_S = 60.0
STOP_WITHIN_S = 5.0
BYTES_A_FILE = 16 << 10
"""Of the size of a file system an inode, as mkfs.ext4 has it."""

_NO_LIMIT = 1 << 62

log = logging.getLogger(__name__)

Measure = Callable[[Instance, Written], Written]
Unit = Sequence[tuple[Instance, Written]]


class Owner(Protocol):
    def end_because(self, instance: Instance, failure: Failure) -> None: ...


@dataclass(frozen=True, slots=True)
class Room:
    """Of the file system that the instances are on."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """`instance_bytes` is for instances that were given no size; `reserve_bytes` is kept free. 0: none."""

    instance_bytes: int
    reserve_bytes: int

    def of(self, instance: Instance) -> Written:
        size_bytes = instance.spec.volume_bytes or self.instance_bytes or _NO_LIMIT
        return Written(size_bytes, max(1, size_bytes // BYTES_A_FILE))

    def reserve(self, room: Room) -> int:
        """Never more than a twentieth, so that a small disk is of use."""
        return min(self.reserve_bytes, room.total_bytes // 20)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there was at one look."""

    at: float
    free_bytes: int
    sizes: Mapping[InstanceId, int]


def room_at(directory: Path) -> Room:
    found = os.statvfs(directory)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def measure(instance: Instance, enough: Written) -> Written:
    """What an instance has written until now; of a container also to its own layer, where that is on the same disk."""
    if instance.minder is None:
        return Written()
    hosts_own = disk_usage.HOSTS_OWN if instance.spec.models is not None else frozenset[str]()
    found = disk_usage.written(instance.directory, limits.below(*instance.roots), enough, hosts_own)
    note = notes.read(instance.directory)
    if note is not None and note.layer and disk_usage.is_same_disk(instance.directory, Path(note.layer)):
        found += disk_usage.written(Path(note.layer), (), enough)
    return found


class DiskWatch:
    """`check` looks once; `start` has a thread do so until `stop`."""

    def __init__(
        self,
        owner: Owner,
        units: Callable[[], Iterable[Sequence[Instance]]],
        room: Callable[[], Room],
        most: DiskLimits,
        clock: Clock,
        measure: Measure = measure,
    ) -> None:
        """`units`: the running containers of each instance, which share its limit."""
        self._owner = owner
        self._units = units
        self._room = room
        self._limits = most
        self._clock = clock
        self._measure = measure
        self._before: deque[_Seen] = deque()
        self._short_since: _Seen | None = None
        self._looked_at = float("-inf")
        self._next_at = float("-inf")
        self._most_free = 0  # since the last look
        self._leaving: tuple[Instance, float] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disk-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_WITHIN_S)

    def check(self) -> None:
        room, now = self._room(), self._clock.monotonic()
        if not self._is_due(room, now):
            return
        measured = [
            [(each, self._measure(each, self._limits.of(each))) for each in unit]
            for unit in self._units()
            if all(each.state.failure is None for each in unit)  # else it is about to end
        ]
        for unit in measured:
            self._hold_to_limit(unit, now)
        now_seen = _Seen(now, room.free_bytes, {e.id: w.size_bytes for unit in measured for e, w in unit})
        is_short = self._is_short(room)
        if is_short:
            self._hold_reserve(measured, now_seen)
        else:
            self._short_since = None
            self._remember(now_seen)
        self._looked_at = now
        took_s = self._clock.monotonic() - now
        self._next_at = now + took_s / (SHARE_WHEN_SHORT if is_short else SHARE)
        self._most_free = room.free_bytes

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.check()
            except Exception:
                log.exception("watching the disk failed")

    def _is_due(self, room: Room, now: float) -> bool:
        self._most_free = max(self._most_free, room.free_bytes)
        if now < self._next_at:
            return False
        has_fallen = self._most_free - room.free_bytes >= min(FALL_BYTES, room.total_bytes // 64)
        return has_fallen or self._is_short(room) or now - self._looked_at >= EVERY_S

    def _is_short(self, room: Room) -> bool:
        return room.free_bytes < self._limits.reserve(room)

    def _hold_to_limit(self, unit: Unit, now: float) -> None:
        """The containers of one instance share its disk. The one with the most is ended."""
        most = self._limits.of(unit[0][0])
        total = sum((found for _, found in unit), Written())
        if total.size_bytes > most.size_bytes:
            largest, _ = max(unit, key=lambda each: each[1].size_bytes)
            self._end(largest, failures.over_disk(largest.spec, total.size_bytes, most.size_bytes), now)
        elif total.files > most.files:
            largest, _ = max(unit, key=lambda each: each[1].files)
            self._end(largest, failures.too_many_files(largest.spec, total.files, most.files), now)

    def _remember(self, now_seen: "_Seen") -> None:
        """Some minutes of it; while room is short, those before it became short."""
        self._before.append(now_seen)
        while len(self._before) > 1 and self._before[1].at <= now_seen.at - LATELY_S:
            self._before.popleft()

    def _hold_reserve(self, measured: Sequence[Unit], now_seen: "_Seen") -> None:
        is_new = self._short_since is None
        self._short_since = self._short_since or now_seen
        if self._is_leaving(now_seen.at) or not self._is_short(room := self._room()):
            return  # asked again, because one that was leaving may have gone since
        grown_bytes, instance = self._to_blame(measured, room)
        reserve = self._limits.reserve(room)
        if instance is not None:
            failure = failures.took_last_room(instance.spec, grown_bytes, room.free_bytes, reserve)
            self._end(instance, failure, now_seen.at)
        elif is_new:
            log.warning(
                "the disk is nearly full, and not for what instances have written lately",
                extra={"free_bytes": room.free_bytes, "reserve_bytes": reserve},
            )

    def _to_blame(self, measured: Sequence[Unit], room: Room) -> tuple[int, Instance | None]:
        """Who writes on in the last room; or wrote most before, where instances and not others have taken it."""
        assert self._short_since is not None, "asked while room is short"
        least = max(1, self._limits.reserve(room) // PART_TO_BLAME)
        for then in (self._short_since, *islice(self._before, 1)):
            grown = [sum(w.size_bytes - then.sizes.get(e.id, 0) for e, w in unit) for unit in measured]
            most = max(grown, default=0)
            lost = then.free_bytes - room.free_bytes
            if most >= least and (then is self._short_since or 2 * sum(grown) >= lost):
                unit = measured[grown.index(most)]
                return most, max(unit, key=lambda each: each[1].size_bytes - then.sizes.get(each[0].id, 0))[0]
        return 0, None

    def _end(self, instance: Instance, failure: Failure, now: float) -> None:
        """One goes at a time for the reserve: the next only when the room that the last one left is not enough."""
        if self._leaving is None or self._leaving[0] is not instance:
            self._leaving = (instance, now + PATIENCE_S)
            log.warning(
                "an instance is ended for the disk", extra={"instance": instance.id, "reason": failure.reason}
            )
        self._owner.end_because(instance, failure)

    def _is_leaving(self, now: float) -> bool:
        """Whether the last one may still give room back."""
        if self._leaving is not None and (self._leaving[0].ended.is_set() or now >= self._leaving[1]):
            self._leaving = None
        return self._leaving is not None
