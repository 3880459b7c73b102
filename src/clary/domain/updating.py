"""An endpoint that is in service: kept, given other numbers, or moved to another fleet step by step, and back.

    provisioning ─▶ activating ─▶ baking ─▶ activating … ─▶ baking ─▶ terminating ─▶ promoted
         ▲  rolling: the next batch  │
         └───────────────────────────┘
    any of them ── an objection ──▶ rolling-back ─▶ rolled back
                                         └────────▶ rollback failed

Blue is what is in force, green what is deployed. Blue/green starts all of green and keeps all of blue to the end; a
rolling update starts green in batches, and for each retires as much of blue. Where an earlier rolling update left a
mix, that mix is blue, and stays whole until green takes everything.

What a stage says is true of the traffic only once that stage was carried out: numbers are written down in one step
and acted on in the next.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from clary.domain import shifting
from clary.domain.deployments import Deployment, Stage
from clary.domain.endpoints import Fleet, Problem
from clary.domain.failures import rollback_problem
from clary.domain.places import Part, places_of
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
from clary.domain.shifting import Counts
from clary.domain.traffic import Layer
from clary.domain.watching import alarm_states, evidence_of, next_look_s, objection, problem_of


def keep(seen: Seen, live: Fleet) -> Plan:
    """Dead instances are replaced, what has no place goes."""
    parts = _blue_parts(seen, live)
    plan = plan_for(seen, parts, _blue_layers(seen, live), look_again_s=None)
    is_calm = seen.standing.are_ready(places_of(parts)) and all(row.is_wanted for row in seen.rows)
    if is_calm and not plan.retire and not plan.troubles:
        return plan
    return replace(plan, again_after_s=min(SAFETY_S, plan.again_after_s or SAFETY_S))


def renumber(seen: Seen, live: Fleet) -> Plan:
    """Other weights and counts: the fleet and its processes stay."""
    wanted = Part(seen.spec.fleet)
    problem = problem_of(seen, wanted.fleet, wanted.places, serving=Part(live).places)
    if problem is not None:
        note = Note("rolling back", evidence_of(problem))
        return Plan(outcome="roll-back", keeps_route=True, problem=problem, notes=(note,), again_after_s=0.0)
    if not is_complete(seen, wanted):
        return plan_for(seen, (*_blue_parts(seen, live), wanted), _blue_layers(seen, live))
    layer = Layer(wanted.fleet, is_traced=seen.state.is_traced)
    return replace(
        plan_for(seen, (wanted,), (layer,)),
        outcome="promote",
        images=images_of(seen, wanted.fleet),
        notes=(Note("in service", ready_evidence(seen, wanted), is_routed=True),),
    )


def deploy(seen: Seen, live: Fleet) -> Plan:
    """One step of an update to another fleet."""
    deployment = _under_way(seen)
    green = _green_part(seen, deployment)
    problem = objection(seen, deployment, green)
    if problem is not None:
        plan = _give_up(seen, live, deployment, problem)
    else:
        plan = _STAGES[deployment.stage](seen, live, deployment, green)
    if seen.state.deployment is None:
        plan = replace(plan, notes=(Note("deployment began", _beginning(seen, green)), *plan.notes))
    return plan


def roll_back(seen: Seen, live: Fleet) -> Plan:
    """One step back to what was in force."""
    deployment = seen.state.deployment
    blue = _blue_parts(seen, live, deployment)
    kept = deployment.retained if deployment else {}
    if deployment is None or (_is_full(live, kept) and not any(deployment.activated.values())):
        plan = plan_for(
            seen, blue, _blue_layers(seen, live), abandoned=seen.spec.fleet.id if deployment else ""
        )
        evidence = {"config": live.config_name, **ready_evidence(seen, *blue)}
        note = Note("rolled back", evidence, is_routed=True)
        return replace(plan, outcome="rolled-back", deployment=None, notes=(note,))
    green = Part(seen.spec.fleet, _without_shadows(seen.spec.fleet, deployment.activated))
    plan = plan_for(seen, (*blue, green), _layers(seen, live, deployment, green), abandoned=green.fleet.id)
    places = {place: variant for part in blue for place, variant in part.places.items()}
    problem = problem_of(seen, live, places)
    if problem is not None and seen.state.problem is not None:
        problem = rollback_problem(seen.state.problem, problem)
        note = Note("rollback failed", evidence_of(problem))
        return replace(plan, outcome="rollback-failed", problem=problem, deployment=None, notes=(note,))
    if not seen.standing.are_ready(places):
        return plan
    activated = shifting.still_activated(live, green.fleet, deployment.activated, kept)
    if activated != deployment.activated:
        note = Note("old instances are back", {"activated": activated, "retained": kept})
        return _with(plan, replace(deployment, activated=activated), note)
    wanted = shifting.restored(seen.spec.policy, live, kept)
    return _with(
        plan, replace(deployment, retained=wanted), Note("old instances come back", {"wanted": wanted})
    )


# The stages


def _provision(seen: Seen, live: Fleet, deployment: Deployment, green: Part) -> Plan:
    plan = _hold(seen, live, deployment, green)
    if not is_complete(seen, green):
        return plan
    return _shift(seen, live, plan, deployment, Note("new instances ready", ready_evidence(seen, green)))


def _activate(seen: Seen, live: Fleet, deployment: Deployment, green: Part) -> Plan:
    """The route of this plan is in every gateway before its note is written."""
    plan = _hold(seen, live, deployment, green)
    evidence: dict[str, Any] = {"activated": deployment.activated}
    if plan.traffic is not None:
        evidence["shares"] = plan.traffic.shares(green.fleet.id)
    if deployment.retained:
        evidence["retained"] = deployment.retained
    evidence |= _alarm_evidence(seen)
    return _with(plan, replace(deployment, stage="baking"), Note("traffic shifted", evidence, is_routed=True))


def _bake(seen: Seen, live: Fleet, deployment: Deployment, green: Part) -> Plan:
    """Nothing moves on while an instance of green is missing."""
    policy = seen.spec.policy
    plan = _hold(seen, live, deployment, green, policy.wait_s)
    if not (_is_over(seen, deployment, policy.wait_s) and is_complete(seen, green)):
        return plan
    notes: tuple[Note, ...] = ()
    if policy.wait_s or policy.alarms:
        evidence = {"seconds": policy.wait_s, **ready_evidence(seen, green), **_alarm_evidence(seen)}
        notes = (Note("bake passed", evidence),)
    if not shifting.is_whole(green.fleet, deployment.activated):
        if policy.strategy == "ROLLING":
            return _with(plan, replace(deployment, stage="provisioning"), *notes)
        return _shift(seen, live, plan, deployment, *notes)
    if policy.termination_wait_s > 0.0:
        return _with(plan, replace(deployment, stage="terminating"), *notes)
    return _promote(seen, deployment, *notes)


def _terminate(seen: Seen, live: Fleet, deployment: Deployment, green: Part) -> Plan:
    wait_s = seen.spec.policy.termination_wait_s
    if _is_over(seen, deployment, wait_s) and is_complete(seen, green):
        return _promote(seen, deployment, Note("termination wait passed", {"seconds": wait_s}))
    return _hold(seen, live, deployment, green, wait_s)


_STAGES: dict[Stage, Callable[[Seen, Fleet, Deployment, Part], Plan]] = {
    "provisioning": _provision,
    "activating": _activate,
    "baking": _bake,
    "terminating": _terminate,
}


def _hold(seen: Seen, live: Fleet, deployment: Deployment, green: Part, wait_s: float = 0.0) -> Plan:
    """Blue and green kept as this stage has them."""
    plan = plan_for(
        seen,
        (*_blue_parts(seen, live, deployment), green),
        _layers(seen, live, deployment, green),
        deployed=green.fleet.id,
    )
    look_s = next_look_s(seen, deployment, wait_s)
    again_s = [s for s in (plan.again_after_s, look_s) if s is not None]
    return replace(plan, deployment=deployment, again_after_s=min(again_s))


def _shift(seen: Seen, live: Fleet, plan: Plan, deployment: Deployment, *notes: Note) -> Plan:
    """Writes down the next shift; traffic moves in the next step."""
    policy, green = seen.spec.policy, seen.spec.fleet
    activated = shifting.next_activation(policy, green, deployment.activated)
    retained: dict[str, int] = {}
    if policy.strategy == "ROLLING" and seen.state.leftover is None:
        retained = shifting.retained(live, green, activated)
    return _with(
        plan, replace(deployment, stage="activating", activated=activated, retained=retained), *notes
    )


def _promote(seen: Seen, deployment: Deployment, *notes: Note) -> Plan:
    green = Part(seen.spec.fleet)
    layer = Layer(green.fleet, is_traced=deployment.is_traced)
    evidence = {"config": green.fleet.config_name, **ready_evidence(seen, green)}
    return replace(
        plan_for(seen, (green,), (layer,), deployed=green.fleet.id),
        outcome="promote",
        deployment=None,
        images=images_of(seen, green.fleet),
        notes=(*notes, Note("in service", evidence, is_routed=True)),
    )


def _give_up(seen: Seen, live: Fleet, deployment: Deployment, problem: Problem) -> Plan:
    """Written down first. Where all of blue is there still, all traffic goes back to it in the next step."""
    activated = {} if _is_full(live, deployment.retained) else deployment.activated
    back = replace(deployment, stage="rolling-back", activated=activated, reason=problem.reason)
    evidence = {"stage": deployment.stage, **evidence_of(problem), **_alarm_evidence(seen)}
    return Plan(
        outcome="roll-back",
        keeps_route=True,
        problem=problem,
        deployment=back,
        troubles=seen.state.troubles,
        notes=(Note("rolling back", evidence),),
        again_after_s=0.0,
    )


def _with(plan: Plan, deployment: Deployment, *notes: Note) -> Plan:
    """The same plan, after which the deployment has come one step further: look again at once."""
    return replace(plan, deployment=deployment, notes=(*plan.notes, *notes), again_after_s=0.0)


# Blue and green


def _under_way(seen: Seen) -> Deployment:
    spec, known = seen.spec, seen.state.deployment
    id_ = spec.deployment_id or spec.fleet.id
    if known is not None and known.id == id_:
        return known
    return Deployment(id=id_, started_at=spec.deployment_started_at)


def _green_part(seen: Seen, deployment: Deployment) -> Part:
    """Blue/green has all of it from the start."""
    fleet, policy = seen.spec.fleet, seen.spec.policy
    if policy.strategy != "ROLLING":
        return Part(fleet)
    counts: Counts = deployment.activated
    if deployment.stage == "provisioning":
        counts = shifting.next_activation(policy, fleet, deployment.activated)
    return Part(fleet, counts)


def _blue_parts(seen: Seen, live: Fleet, deployment: Deployment | None = None) -> tuple[Part, ...]:
    left = seen.state.leftover
    if left is None:
        return (Part(live, deployment.retained if deployment else None),)
    return (Part(live, left.retained), Part(left.fleet, _without_shadows(left.fleet, left.activated)))


def _blue_layers(seen: Seen, live: Fleet, deployment: Deployment | None = None) -> tuple[Layer, ...]:
    left = seen.state.leftover
    if left is None:
        kept = deployment.retained if deployment else None
        return (Layer(live, kept, is_traced=seen.state.is_traced),)
    return (
        Layer(live, left.retained, is_traced=seen.state.is_traced),
        Layer(left.fleet, left.activated, left.activated, is_traced=True),
    )


def _layers(seen: Seen, live: Fleet, deployment: Deployment, green: Part) -> tuple[Layer, ...]:
    top = Layer(green.fleet, green.counts, deployment.activated, deployment.is_traced)
    return (*_blue_layers(seen, live, deployment), top)


def _without_shadows(fleet: Fleet, counts: Counts) -> dict[str, int]:
    return {**counts, **{shadow.name: 0 for shadow in fleet.shadows}}


def _is_full(fleet: Fleet, kept: Counts) -> bool:
    return all(kept.get(name, count) >= count for name, count in shifting.counts(fleet).items())


def _is_over(seen: Seen, deployment: Deployment, wait_s: float) -> bool:
    since = deployment.stage_since
    return since is not None and seen.now - since >= timedelta(seconds=wait_s)


# Evidence


def _beginning(seen: Seen, green: Part) -> dict[str, Any]:
    policy = seen.spec.policy
    found: dict[str, Any] = {
        "config": green.fleet.config_name,
        "strategy": policy.strategy,
        "instances": {v.name: v.count for v in green.fleet.variants},
    }
    return found | _alarm_evidence(seen)


def _alarm_evidence(seen: Seen) -> dict[str, Any]:
    return {"alarms": alarm_states(seen)} if seen.spec.policy.alarms else {}
