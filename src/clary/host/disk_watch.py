"""Ends instances that fill the disk: over their own limit, or first to blame when the machine's last room is taken.

Four times a second the file system is asked how much is free, which costs nothing. Instances are looked at only when
that has fallen, and once a minute, or every few seconds while room is short; and for a fifth of the time at most (half
of it while room is short), however many files there are.

Who is ended for the last room is to blame for it (`disk_growth`): being short of room alone is nobody's guilt.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.instances import Failure, InstanceId
from clary.host import disk_usage, failures, limits
from clary.host.disk_growth import Growth, Seen, Unit
from clary.host.disk_limits import DiskLimits, Room
from clary.host.disk_usage import Written
from clary.host.engine import notes
from clary.host.records import Instance

LOOK_S = 0.25
EVERY_S = 60.0
SHARE, SHARE_WHEN_SHORT = 0.2, 0.5
FALL_BYTES = 64 << 20
EVERY_WHEN_SHORT_S = 5.0
PATIENCE_S = 60.0
STOP_WITHIN_S = 5.0

log = logging.getLogger(__name__)

Measure = Callable[[Instance, Written, bool], Written]
"""`spare_ahead` at the end, as `disk_usage.written` has it."""


class Owner(Protocol):
    def end_because(self, instance: Instance, failure: Failure) -> None: ...


def measure(instance: Instance, enough: Written, spare_ahead: bool) -> Written:
    """What an instance has written until now; of a container also to its own layer, where that is on the same disk."""
    if instance.minder is None:
        return Written()
    hosts_own = disk_usage.HOSTS_OWN if instance.spec.models is not None else frozenset[str]()
    processes = limits.below(*instance.roots)
    found = disk_usage.written(instance.directory, processes, enough, hosts_own, spare_ahead=spare_ahead)
    note = notes.read(instance.directory)
    if note is not None and note.layer and disk_usage.is_same_disk(instance.directory, Path(note.layer)):
        found += disk_usage.written(Path(note.layer), (), enough, spare_ahead=spare_ahead)
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
        self._failing: set[InstanceId] = set()
        self._growth = Growth(most)
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
        is_short = self._is_short(room)
        try:
            units = [*self._units()]
            self._failing &= {each.id for unit in units for each in unit}
            measured = [found for unit in units if (found := self._look_at(unit, now))]
            now_seen = self._growth.see(now, room, measured, self._failing)
            if is_short:
                self._hold_reserve(measured, now_seen)
            else:
                self._growth.remember(now_seen)
        finally:
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
        fall, every_s = min(FALL_BYTES, max(1, room.total_bytes // 64)), EVERY_S
        if self._is_short(room):
            if not self._growth.is_short or self._leaving is not None:
                return True
            fall, every_s = min(fall, max(1, self._limits.least(room) // 4)), EVERY_WHEN_SHORT_S
        return self._most_free - room.free_bytes >= fall or now - self._looked_at >= every_s

    def _is_short(self, room: Room) -> bool:
        return room.free_bytes < self._limits.reserve(room)

    def _look_at(self, unit: Sequence[Instance], now: float) -> Unit | None:
        """One that cannot be looked at takes nothing from the others."""
        if any(each.state.failure is not None for each in unit):
            return None  # about to end
        ids = {each.id for each in unit}
        try:
            measured = [(each, self._written(each)) for each in unit]
            self._hold_to_limit(measured, now)
        except Exception:
            if not ids <= self._failing:
                log.exception("an instance's disk cannot be looked at", extra={"instance": unit[0].id})
            self._failing |= ids
            return None
        self._failing -= ids
        return measured

    def _written(self, instance: Instance) -> Written:
        found = self._measure(instance, self._limits.of(instance), False)
        return self._growth.most_known(instance, found)

    def _hold_to_limit(self, unit: Unit, now: float) -> None:
        """The containers of one instance share its disk. The one with the most is ended."""
        most = self._limits.of(unit[0][0])
        total = sum((found for _, found in unit), Written())
        if total.size_bytes > most.size_bytes:
            # Some file systems hold blocks ready beyond a file's end, which nobody asked for: again without them.
            unit = [(each, self._measure(each, most, True)) for each, _ in unit]
            total = sum((found for _, found in unit), Written())
        if total.size_bytes > most.size_bytes:
            largest, _ = max(unit, key=lambda each: each[1].size_bytes)
            self._end(largest, failures.over_disk(largest.spec, total.size_bytes, most.size_bytes), now)
        elif total.files > most.files:
            largest, _ = max(unit, key=lambda each: each[1].files)
            self._end(largest, failures.too_many_files(largest.spec, total.files, most.files), now)

    def _hold_reserve(self, measured: Sequence[Unit], now_seen: Seen) -> None:
        is_new = self._growth.remember_short(now_seen)
        if self._is_leaving(now_seen.at) or not self._is_short(room := self._room()):
            return  # asked again, because one that was leaving may have gone since
        grown_bytes, instance = self._growth.to_blame(measured, room)
        reserve = self._limits.reserve(room)
        if instance is not None:
            failure = failures.took_last_room(instance.spec, grown_bytes, room.free_bytes, reserve)
            self._end(instance, failure, now_seen.at)
        elif is_new:
            log.warning(
                "the disk is nearly full, and not for what instances have written lately",
                extra={"free_bytes": room.free_bytes, "reserve_bytes": reserve},
            )

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
