"""What to do next for an endpoint: a pure function from what is wanted and what is seen to a plan.

    Creating ── every instance ready ──▶ promote: route published, then InService
        └────── an instance ended ─────▶ fail: everything wound down, then Failed
    InService ─ an instance died ──────▶ routed without it, replaced by its next incarnation
    Updating ── all of the wanted fleet ready ─▶ promote; what is no longer wanted is retired
        └────── one ended ─────────────▶ roll back: the fleet in force is wanted again, InService
    Deleting ── withdrawn, retired, nothing left ─▶ gone

The plan is carried out in the order: route, records, starts, retirements (`reconcilers/endpoint.py`). A retired
instance therefore never stands in a published route.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from clary.domain.endpoints import EndpointState, Fleet, Outlook, Problem, Slot, Variant
from clary.domain.failures import capacity_problem, deployment_problem
from clary.domain.instances import InstanceId, InstanceStatus, Phase
from clary.domain.routes import Target, VariantRoute

PROVEN_S = 60.0
"""An instance that was ready this long before it died was good: its replacement starts at once."""

MOST_FAILURES = 3
"""A deployment in which one place failed so often in a row is given up."""

LONGEST_DELAY_S = 60.0
SAFETY_S = 5.0
"""While anything is under way it is looked at this often, even when no change is reported."""


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
class Seen:
    """Everything a decision may depend on."""

    name: str
    status: str
    wanted: Fleet
    state: EndpointState
    rows: tuple[InstanceRow, ...]
    statuses: Mapping[InstanceId, InstanceStatus]
    now: datetime
    accelerators: int = 0
    command_options: str = ""  # for the `clary` command that a failure reason names


@dataclass(frozen=True, slots=True)
class NewInstance:
    slot: Slot
    variant: Variant
    failures: int = 0
    delay_s: float = 0.0


Outcome = Literal["continue", "promote", "fail", "failed", "roll-back", "gone"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`route` is what gateways should have, None meaning nothing. Tuples may be empty: then nothing is done."""

    outcome: Outcome = "continue"
    route: tuple[VariantRoute, ...] | None = None
    create: tuple[NewInstance, ...] = ()
    retire: tuple[InstanceId, ...] = ()
    problem: Problem | None = None
    images: Mapping[str, str] | None = None
    again_after_s: float | None = None


def decide(seen: Seen) -> Plan:
    is_failing = seen.status == "Creating" and seen.state.problem is not None
    if seen.status in ("Deleting", "Failed") or is_failing:
        return _wind_down(seen)
    live = seen.state.fleet
    if live is None or seen.status == "Updating" or seen.wanted != live:
        return _deploy(seen, live)
    return _keep(seen, live)


def outlook(rows: Iterable[InstanceRow], statuses: Mapping[InstanceId, InstanceStatus]) -> Outlook:
    """Whether the instances of a deployment will soon be up.

    An environment that is built says so in `detail`; before that, `preparing` may last a moment or minutes. Nor is
    it known of what has not been started, or waits to be started again.
    """
    seen = [statuses.get(row.id) for row in rows if row.is_wanted]
    if any(status is not None and status.phase == "preparing" and status.detail for status in seen):
        return "slow"
    known = ("fetching", "starting", "ready")
    return (
        "soon" if seen and all(status is not None and status.phase in known for status in seen) else "unknown"
    )


def _wind_down(seen: Seen) -> Plan:
    if seen.rows:
        return Plan(retire=tuple(row.id for row in seen.rows if row.is_wanted), again_after_s=SAFETY_S)
    if seen.status == "Deleting":
        return Plan(outcome="gone")
    return Plan(outcome="failed" if seen.status == "Creating" else "continue")


def _deploy(seen: Seen, live: Fleet | None) -> Plan:
    """Towards the wanted fleet, while the one in force (if any) goes on."""
    newest = _newest(seen.rows)
    problem = _problem(seen, live, newest)
    if problem is not None and live is None:
        return Plan(
            outcome="fail", problem=problem, retire=tuple(newest[p].id for p in newest), again_after_s=0.0
        )
    if problem is not None and live is not None:
        back = _keep(seen, live)
        return replace(back, outcome="roll-back", problem=problem)
    ready = [_is_ready(seen, newest.get(place)) for place in _places(seen.wanted)]
    if all(ready):
        kept = _keep(seen, seen.wanted)
        return replace(kept, outcome="promote", images=_images(seen, newest))
    fleets = (seen.wanted,) if live is None else (live, seen.wanted)
    create = _replacements(seen, newest, fleets)
    return Plan(
        route=None if live is None else _route(seen, live, newest),
        create=create,
        retire=_superfluous(seen, newest, fleets, create),
        again_after_s=_again(seen, newest, create, SAFETY_S),
    )


def _keep(seen: Seen, fleet: Fleet) -> Plan:
    """Keep one fleet in force: dead instances replaced, everything else retired."""
    newest = _newest(seen.rows)
    create = _replacements(seen, newest, (fleet,))
    is_whole = all(_is_ready(seen, newest.get(place)) for place in _places(fleet))
    has_leaving = any(not row.is_wanted for row in seen.rows)
    retire = _superfluous(seen, newest, (fleet,), create)
    return Plan(
        route=_route(seen, fleet, newest),
        create=create,
        retire=retire,
        again_after_s=_again(
            seen, newest, create, None if is_whole and not has_leaving and not retire else SAFETY_S
        ),
    )


def _newest(rows: Iterable[InstanceRow]) -> dict[tuple[str, str, int], InstanceRow]:
    """The instance that stands in each place: the newest incarnation, if it is still wanted."""
    newest: dict[tuple[str, str, int], InstanceRow] = {}
    for row in sorted(rows, key=lambda row: row.slot.incarnation):
        newest[row.slot.place] = row
    return {place: row for place, row in newest.items() if row.is_wanted}


def _places(fleet: Fleet) -> dict[tuple[str, str, int], Variant]:
    return {
        (fleet.id, variant.name, ordinal): variant
        for variant in fleet.variants
        for ordinal in range(variant.count)
    }


def _status(seen: Seen, row: InstanceRow) -> InstanceStatus:
    return seen.statuses.get(row.id) or InstanceStatus(row.id, "missing")


def _is_ready(seen: Seen, row: InstanceRow | None) -> bool:
    return row is not None and _status(seen, row).phase == "ready"


def _is_dead(seen: Seen, row: InstanceRow) -> bool:
    """One that was never started is not dead: the driver does not know it yet."""
    phase = _status(seen, row).phase
    return phase in ("exited", "unhealthy") or (phase == "missing" and row.is_started)


def _failures_after(seen: Seen, row: InstanceRow) -> int:
    """How often in a row this place has failed. One that worked when it was last seen and is now unknown to the
    driver did not fail: everything was stopped, or the machine went down."""
    if _status(seen, row).phase == "missing" and row.phase == "ready":
        return 1
    ready_at = _status(seen, row).ready_at
    was_proven = ready_at is not None and seen.now.timestamp() - ready_at >= PROVEN_S
    return 1 if was_proven else row.failures + 1


def _delay_s(failures: int) -> float:
    return 0.0 if failures <= 1 else min(LONGEST_DELAY_S, 2.0 ** min(failures - 2, 10))


def _problem(
    seen: Seen, live: Fleet | None, newest: Mapping[tuple[str, str, int], InstanceRow]
) -> Problem | None:
    """Why the deployment cannot succeed, if that is known."""
    for variant in seen.wanted.variants:
        if variant.accelerators > seen.accelerators:
            return capacity_problem(seen.name, variant, seen.accelerators, seen.command_options)
    serving = _places(live) if live is not None else {}
    for place, variant in _places(seen.wanted).items():
        row = newest.get(place)
        if row is None or not _is_dead(seen, row):
            continue
        status = _status(seen, row)
        has_said_why = status.phase == "exited" and place not in serving
        if has_said_why or _failures_after(seen, row) >= MOST_FAILURES:
            return deployment_problem(seen.name, variant, status, seen.command_options)
    return None


def _replacements(
    seen: Seen, newest: Mapping[tuple[str, str, int], InstanceRow], fleets: tuple[Fleet, ...]
) -> tuple[NewInstance, ...]:
    """Instances for places that are empty or whose instance is dead."""
    last = {row.slot.place: -1 for row in seen.rows}
    for known in seen.rows:
        last[known.slot.place] = max(last[known.slot.place], known.slot.incarnation)
    new = []
    for place, variant in {place: v for fleet in fleets for place, v in _places(fleet).items()}.items():
        row = newest.get(place)
        if row is not None and not _is_dead(seen, row):
            continue
        failures = 0 if row is None else _failures_after(seen, row)
        slot = Slot(*place, incarnation=last.get(place, -1) + 1)
        new.append(NewInstance(slot, variant, failures, _delay_s(failures)))
    return tuple(new)


def _superfluous(
    seen: Seen,
    newest: Mapping[tuple[str, str, int], InstanceRow],
    fleets: tuple[Fleet, ...],
    create: tuple[NewInstance, ...],
) -> tuple[InstanceId, ...]:
    """Those still on record as wanted that stand in no place, or whose place gets a new instance."""
    replaced = {new.slot.place for new in create}
    places = {place for fleet in fleets for place in _places(fleet)} - replaced
    standing = {row.id for place, row in newest.items() if place in places}
    return tuple(row.id for row in seen.rows if row.is_wanted and row.id not in standing)


def _route(
    seen: Seen, fleet: Fleet, newest: Mapping[tuple[str, str, int], InstanceRow]
) -> tuple[VariantRoute, ...]:
    return tuple(_variant_route(seen, fleet, variant, newest) for variant in fleet.variants)


def _variant_route(
    seen: Seen, fleet: Fleet, variant: Variant, newest: Mapping[tuple[str, str, int], InstanceRow]
) -> VariantRoute:
    # A script of the user's may have done things before it failed: only ours may be asked again, or in company.
    is_ours = not _runs_script(seen, fleet, variant, newest)
    return VariantRoute(
        name=variant.name,
        weight=variant.weight,
        targets=tuple(_targets(seen, fleet, variant, newest)),
        routing=variant.routing,
        container=variant.container,
        retries_elsewhere=is_ours,
        pipelines=is_ours,
    )


def _targets(
    seen: Seen, fleet: Fleet, variant: Variant, newest: Mapping[tuple[str, str, int], InstanceRow]
) -> Iterable[Target]:
    for ordinal in range(variant.count):
        row = newest.get((fleet.id, variant.name, ordinal))
        if row is not None and _is_ready(seen, row):
            yield Target(row.id, _status(seen, row).address)


def _runs_script(
    seen: Seen, fleet: Fleet, variant: Variant, newest: Mapping[tuple[str, str, int], InstanceRow]
) -> bool:
    """What the environment does not say yet, the instances do: the script may lie in the model's archive."""
    rows = (newest.get((fleet.id, variant.name, ordinal)) for ordinal in range(variant.count))
    return "SAGEMAKER_PROGRAM" in variant.environment or any(
        row is not None and _is_ready(seen, row) and _status(seen, row).runs_script for row in rows
    )


def _images(seen: Seen, newest: Mapping[tuple[str, str, int], InstanceRow]) -> dict[str, str]:
    return {
        variant.name: _status(seen, newest[place]).resolved_image
        for place, variant in _places(seen.wanted).items()
    }


def _again(
    seen: Seen,
    newest: Mapping[tuple[str, str, int], InstanceRow],
    create: tuple[NewInstance, ...],
    otherwise_s: float | None,
) -> float | None:
    """Soon enough for the next start that waits for its time."""
    waits = [new.delay_s for new in create]
    waits += [
        max(0.0, (row.start_at - seen.now) / timedelta(seconds=1))
        for row in newest.values()
        if not row.is_started
    ]
    if otherwise_s is not None:
        waits.append(otherwise_s)
    return min(waits, default=None)
