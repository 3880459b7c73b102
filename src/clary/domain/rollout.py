"""What to do next for an endpoint: a pure function from what is wanted and what is seen to a plan.

    Creating ── every instance ready ──▶ promote: route published, then InService
        └────── an instance ended ─────▶ fail: everything wound down, then Failed
    InService ─ an instance died ──────▶ routed without it, replaced by its next incarnation
    Updating ── a new fleet ───────────▶ `domain.updating`: step by step, watched, promoted or rolled back
        └────── other numbers ─────────▶ the same fleet: promoted when whole, or rolled back
    RollingBack ─ the fleet in force takes everything again ─▶ rolled-back: InService
        └─────── it cannot be restored (rolling updates) ────▶ rollback-failed: UpdateRollbackFailed
    Deleting ── withdrawn, retired, nothing left ─▶ gone

The plan is carried out in the order: route, records, starts, retirements (`reconcilers/endpoint.py`). A retired
instance therefore never stands in a published route.
"""

from collections.abc import Iterable
from dataclasses import replace

from clary.domain import updating
from clary.domain.endpoints import Outlook
from clary.domain.places import InstanceRow, Part
from clary.domain.plans import (
    SAFETY_S,
    Note,
    Plan,
    Seen,
    images_of,
    is_complete,
    plan_for,
    ready_evidence,
)
from clary.domain.traffic import Layer
from clary.domain.watching import evidence_of, problem_of


def decide(seen: Seen) -> Plan:
    is_failing = seen.status == "Creating" and seen.state.problem is not None
    if seen.status in ("Deleting", "Failed") or is_failing:
        return _wind_down(seen)
    live = seen.state.fleet
    if live is None:
        return _create(seen)
    if seen.status == "RollingBack":
        return updating.roll_back(seen, live)
    if seen.spec.fleet.id != live.id:
        return updating.deploy(seen, live)
    if seen.status == "Updating" or seen.spec.fleet != live:
        return updating.renumber(seen, live)
    return updating.keep(seen, live)


def outlook(seen: Seen, rows: Iterable[InstanceRow]) -> Outlook:
    """Whether the deployment will soon be over, with these instances on record.

    An environment that is built says so in `detail`; before that, `preparing` may last a moment or minutes. Nor is
    it known of what has not been started, or waits to be started again. Bakes take their time.
    """
    policy = seen.spec.policy
    if seen.state.fleet is not None and (policy.wait_s or policy.termination_wait_s):
        return "slow"
    statuses = [seen.statuses.get(row.id) for row in rows if row.is_wanted]
    if any(status is not None and status.phase == "preparing" and status.detail for status in statuses):
        return "slow"
    known = ("fetching", "starting", "ready")
    is_soon = statuses and all(status is not None and status.phase in known for status in statuses)
    return "soon" if is_soon else "unknown"


def _wind_down(seen: Seen) -> Plan:
    if seen.rows:
        return Plan(retire=tuple(row.id for row in seen.rows if row.is_wanted), again_after_s=SAFETY_S)
    if seen.status == "Deleting":
        return Plan(outcome="gone")
    if seen.status == "Creating":
        return Plan(outcome="failed", notes=(Note("failed"),))
    return Plan()


def _create(seen: Seen) -> Plan:
    """The first fleet: there is nothing to route to before all of it is ready."""
    wanted = seen.spec.fleet
    part = Part(wanted)
    problem = problem_of(seen, wanted, part.places)
    if problem is not None:
        return Plan(
            outcome="fail",
            problem=problem,
            retire=tuple(row.id for row in seen.rows if row.is_wanted),
            notes=(Note("deployment failed", evidence_of(problem)),),
            again_after_s=0.0,
        )
    if not is_complete(seen, part):
        return plan_for(seen, (part,), (), deployed=wanted.id)
    evidence = {"config": wanted.config_name, **ready_evidence(seen, part)}
    return replace(
        plan_for(seen, (part,), (Layer(wanted),), deployed=wanted.id),
        outcome="promote",
        images=images_of(seen, wanted),
        notes=(Note("in service", evidence, is_routed=True),),
    )
