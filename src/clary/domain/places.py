"""Which instance stands in which place, how it fares, and what it takes to have every place filled.

A place is a fleet, a variant and an ordinal; the instance in it is the newest incarnation that is still wanted. An
instance that is dead leaves its place to the next incarnation: at once the first time, later and later when it
happens again and again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from clary.domain.endpoints import Fleet, Slot, Variant
from clary.domain.instances import InstanceId, InstanceStatus, Phase

PROVEN_S = 60.0
"""An instance that was ready this long before it died was good: earlier failures of its place are forgotten."""

STEADY_S = 3.0
"""After an instance that was ready this long the next one starts at once: starting costs little beside that."""

MOST_FAILURES = 3
"""A deployment in which one place failed so often in a row is given up; in service, a place is in trouble then."""

LONGEST_DELAY_S = 60.0

Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance as control has it on record."""

    id: InstanceId
    slot: Slot
    is_wanted: bool
    is_started: bool
    phase: Phase
    failures: int
    start_at: datetime
    gone_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewInstance:
    slot: Slot
    variant: Variant
    failures: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """The instances a fleet should have: so many of each variant; those that `counts` does not name, all of them."""

    fleet: Fleet
    counts: Mapping[str, int] | None = None

    def count(self, variant: Variant) -> int:
        return (self.counts or {}).get(variant.name, variant.count)

    @property
    def places(self) -> dict[Place, Variant]:
        """Those of its production variants."""
        return self._places(self.fleet.variants)

    @property
    def shadow_places(self) -> dict[Place, Variant]:
        return self._places(self.fleet.shadows)

    def _places(self, variants: Iterable[Variant]) -> dict[Place, Variant]:
        return {
            (self.fleet.id, variant.name, ordinal): variant
            for variant in variants
            for ordinal in range(self.count(variant))
        }


def places_of(parts: Iterable[Part]) -> dict[Place, Variant]:
    """Every place there should be, of shadows as well."""
    return {place: v for part in parts for place, v in (part.places | part.shadow_places).items()}


class Standing:
    """The instances of one endpoint at one moment."""

    def __init__(
        self, rows: Iterable[InstanceRow], statuses: Mapping[InstanceId, InstanceStatus], now: datetime
    ) -> None:
        self.rows = tuple(rows)
        self._statuses = statuses
        self._now = now
        newest: dict[Place, InstanceRow] = {}
        for row in sorted(self.rows, key=lambda row: row.slot.incarnation):
            newest[row.slot.place] = row
        self._newest = {place: row for place, row in newest.items() if row.is_wanted}

    def at(self, place: Place) -> InstanceRow | None:
        return self._newest.get(place)

    def status(self, row: InstanceRow) -> InstanceStatus:
        return self._statuses.get(row.id) or InstanceStatus(row.id, "missing")

    def is_ready(self, place: Place) -> bool:
        row = self.at(place)
        return row is not None and self.status(row).phase == "ready"

    def are_ready(self, places: Iterable[Place]) -> bool:
        return all(self.is_ready(place) for place in places)

    def ready(self, fleet: Fleet, variant: Variant, below: int) -> list[InstanceStatus]:
        """The ready instances of a variant whose ordinals are below this, in order."""
        places = ((fleet.id, variant.name, ordinal) for ordinal in range(below))
        return [self.status(row) for p in places if self.is_ready(p) and (row := self.at(p)) is not None]

    def is_dead(self, row: InstanceRow) -> bool:
        """One that was never started is not dead: the driver does not know it yet."""
        phase = self.status(row).phase
        return phase in ("exited", "unhealthy") or (phase == "missing" and row.is_started)

    def was_ready(self, row: InstanceRow) -> bool:
        return self.status(row).ready_at is not None or row.phase in ("ready", "unhealthy")

    def failures_after(self, row: InstanceRow, *, forgives: bool = True) -> int:
        """How often in a row this place has failed, with a dead instance in it.

        One that worked when it was last seen and is now unknown to the driver did not fail: everything was
        stopped, or the machine went down. `forgives` says whether having been ready for long makes good for
        earlier failures; in a deployment it does not.
        """
        if self.status(row).phase == "missing" and row.phase == "ready":
            return 1
        return 1 if forgives and self._was_ready_for(row, PROVEN_S) else row.failures + 1

    def has_been_tried(self, place: Place) -> bool:
        """Whether it is known how a first start there ended."""
        row = self.at(place)
        return row is not None and (row.failures > 0 or self.is_dead(row) or self.is_ready(place))

    def replacements(
        self, places: Mapping[Place, Variant], *, deployed: str = "", first: Mapping[str, int] | None = None
    ) -> tuple[NewInstance, ...]:
        """Instances for places that are empty or whose instance is dead.

        Places of the fleet `deployed` are not forgiven earlier failures. `first` says with which incarnation
        the empty places of a fleet begin.
        """
        last: dict[Place, int] = {}
        for known in self.rows:
            last[known.slot.place] = max(last.get(known.slot.place, -1), known.slot.incarnation)
        new = []
        for place, variant in places.items():
            row = self.at(place)
            if row is not None and not self.is_dead(row):
                continue
            failures = 0 if row is None else self.failures_after(row, forgives=place[0] != deployed)
            incarnation = max(last.get(place, -1) + 1, (first or {}).get(place[0], 0))
            waits_s = 0.0 if row is not None and self._was_ready_for(row, STEADY_S) else delay_s(failures)
            new.append(NewInstance(Slot(*place, incarnation), variant, failures, waits_s))
        return tuple(new)

    def superfluous(
        self, places: Mapping[Place, Variant], create: Iterable[NewInstance]
    ) -> tuple[InstanceId, ...]:
        """Those still on record as wanted that stand in no place, or whose place gets a new instance."""
        kept = places.keys() - {new.slot.place for new in create}
        standing = {row.id for place, row in self._newest.items() if place in kept}
        return tuple(row.id for row in self.rows if row.is_wanted and row.id not in standing)

    def next_start_s(self, create: Iterable[NewInstance]) -> float | None:
        """Until the next start that waits for its time."""
        waits = [new.delay_s for new in create]
        waits += [
            max(0.0, (row.start_at - self._now) / timedelta(seconds=1))
            for row in self._newest.values()
            if not row.is_started
        ]
        return min(waits, default=None)

    def troubles(self, parts: Iterable[Part]) -> dict[str, str]:
        """Variant → what keeps happening to its instances."""
        found: dict[str, str] = {}
        for place, variant in places_of(parts).items():
            row = self.at(place)
            if row is not None and row.failures >= MOST_FAILURES and not self._is_proven(row):
                found.setdefault(
                    variant.name,
                    f"Instance {place[2] + 1} of {variant.count} has ended {row.failures} times in a row. When it "
                    f"ends within {STEADY_S:g} s of being ready it is started again later and later.",
                )
        return found

    def _is_proven(self, row: InstanceRow) -> bool:
        return self.status(row).phase == "ready" and self._was_ready_for(row, PROVEN_S)

    def _was_ready_for(self, row: InstanceRow, seconds: float) -> bool:
        ready_at = self.status(row).ready_at
        return ready_at is not None and self._now.timestamp() - ready_at >= seconds


def delay_s(failures: int) -> float:
    return 0.0 if failures <= 1 else min(LONGEST_DELAY_S, 2.0 ** min(failures - 2, 10))
