"""Which instances have written how much lately, by what the looks of the last minutes saw, and who is to blame.

What others write fills the disk too: being short of room alone is nobody's guilt, and many a disk is short for ever.
So who is to blame has written most in the last room or before it was that, where instances and not others took at
least half of what is gone since.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from clary.domain.instances import InstanceId
from clary.host.disk_limits import DiskLimits, Room
from clary.host.disk_usage import Written
from clary.host.records import Instance

LATELY_S = 600.0

Unit = Sequence[tuple[Instance, Written]]
"""The containers of one instance."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was at one look. A size is None where only part was seen, until a later look has seen all.

    Who is not in it came later: all that it has, it has written since.
    """

    at: float
    free_bytes: int
    sizes: dict[InstanceId, int | None]

    def grown(self, instance: Instance, found: Written) -> int:
        then = self.sizes.get(instance.id, 0)
        return 0 if then is None else found.size_bytes - then


class Growth:
    """Of the watch's thread alone."""

    def __init__(self, most: DiskLimits) -> None:
        self._limits = most
        self._last: dict[InstanceId, Written] = {}
        self._before: deque[Seen] = deque()
        self._short_since: Seen | None = None

    @property
    def is_short(self) -> bool:
        """Whether room was short at the last look."""
        return self._short_since is not None

    def most_known(self, instance: Instance, found: Written) -> Written:
        """Of what was seen in part only, the most that is known."""
        last = self._last.get(instance.id)
        if found.is_whole or last is None:
            return found
        return Written(max(found.size_bytes, last.size_bytes), max(found.files, last.files), is_whole=False)

    def see(self, now: float, room: Room, measured: Sequence[Unit], failing: Collection[InstanceId]) -> Seen:
        """What was seen now; where earlier looks had seen one only in part, it counts for them as well."""
        found = {each.id: written for unit in measured for each, written in unit}
        whole = {id_: written.size_bytes for id_, written in found.items() if written.is_whole}
        late = {id_ for id_ in whole if id_ not in self._last or not self._last[id_].is_whole}
        for seen in (*self._before, self._short_since) if late else ():
            if seen is not None:
                seen.sizes.update({id_: whole[id_] for id_ in late if seen.sizes.get(id_, 0) is None})
        self._last = found
        return Seen(now, room.free_bytes, dict.fromkeys({*found, *failing}) | whole)

    def remember(self, now_seen: Seen) -> None:
        """Where there is room: some minutes of it. While it is short, those before it became short stay."""
        self._short_since = None
        self._before.append(now_seen)
        while len(self._before) > 1 and self._before[1].at <= now_seen.at - LATELY_S:
            self._before.popleft()

    def remember_short(self, now_seen: Seen) -> bool:
        """Where there is little room; True when that is new."""
        is_new = self._short_since is None
        if self._short_since is None:
            self._short_since = now_seen
        elif self._short_since.at <= now_seen.at - LATELY_S:
            # A disk may be short for ever: what was written hours ago did not lead to what is lost now.
            self._before.clear()
            self._short_since = now_seen
        return is_new

    def to_blame(self, measured: Sequence[Unit], room: Room) -> tuple[int, Instance | None]:
        """Who wrote most in the last room, or before it was that: where instances and not others have taken it."""
        assert self._short_since is not None, "nobody is to blame where there is room"
        for then in (self._short_since, *islice(self._before, 1)):
            grown = [sum(then.grown(*each) for each in unit) for unit in measured]
            most = max(grown, default=0)
            lost = then.free_bytes - room.free_bytes
            if most >= self._limits.least(room) and lost > 0 and 2 * sum(grown) >= lost:
                unit = measured[grown.index(most)]
                return most, max(unit, key=lambda each: then.grown(*each))[0]
        return 0, None
