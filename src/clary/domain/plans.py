"""What a decision about an endpoint depends on, and what it may ask for. How plans come about: `domain.rollout`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from clary.domain.deployments import Deployment
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Leftover, Problem
from clary.domain.instances import InstanceId, InstanceStatus
from clary.domain.places import InstanceRow, NewInstance, Part, Standing, places_of
from clary.domain.traffic import Layer, Traffic, traffic

SAFETY_S = 5.0
"""While anything is under way it is looked at this often, even when no change is reported."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything a decision may depend on. `alarms` holds the states of those the deployment is watched by; one
    that does not exist is missing there. `alarm_reasons` says why they are in them."""

    name: str
    status: str
    spec: EndpointSpec
    state: EndpointState
    rows: tuple[InstanceRow, ...]
    statuses: Mapping[InstanceId, InstanceStatus]
    now: datetime
    accelerators: int = 0
    alarms: Mapping[str, str] = field(default_factory=dict)
    alarm_reasons: Mapping[str, str] = field(default_factory=dict)
    command_options: str = ""  # for the `clary` command that a failure reason names

    @property
    def standing(self) -> Standing:
        return Standing(self.rows, self.statuses, self.now)


@dataclass(frozen=True, slots=True)
class Note:
    """One step, for the time line and the deployment's record, with what was seen.

    `is_routed`: every gateway acknowledged the plan's route before the note is written.
    """

    step: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    is_routed: bool = False


Outcome = Literal[
    "continue", "promote", "fail", "failed", "roll-back", "rolled-back", "rollback-failed", "gone"
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what is true when it is done. Tuples may be empty: then nothing is done.

    `traffic` is what gateways should have, None meaning nothing; with `keeps_route` they keep what they have.
    `deployment` is how far the deployment has come, and written down before anything further is done for it.
    """

    outcome: Outcome = "continue"
    traffic: Traffic | None = None
    keeps_route: bool = False
    create: tuple[NewInstance, ...] = ()
    retire: tuple[InstanceId, ...] = ()
    deployment: Deployment | None = None
    problem: Problem | None = None
    images: Mapping[str, str] | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    again_after_s: float | None = None


def plan_for(
    seen: Seen,
    parts: tuple[Part, ...],
    layers: tuple[Layer, ...],
    *,
    deployed: str = "",
    abandoned: str = "",
    look_again_s: float | None = SAFETY_S,
) -> Plan:
    """The plan that fills the places of `parts` and empties all others, with the traffic of `layers` (none: no route).

    The fleet `deployed` is on trial: see `Standing.replacements`. Dead instances of the fleet `abandoned` are not
    replaced.
    """
    standing = seen.standing
    places = places_of(parts)
    live, left = seen.state.fleet, seen.state.leftover
    first = {fleet.id: seen.state.next_incarnation for fleet in (live, left and left.fleet) if fleet}
    filled = {place: variant for place, variant in places.items() if place[0] != abandoned}
    create = standing.replacements(filled, deployed=deployed, first=first)
    waits = [s for s in (standing.next_start_s(create), look_again_s) if s is not None]
    return Plan(
        traffic=traffic(layers, standing) if layers else None,
        create=create,
        retire=standing.superfluous(places, create),
        deployment=seen.state.deployment,
        troubles=standing.troubles(parts),
        again_after_s=min(waits, default=None),
    )


def is_complete(seen: Seen, part: Part) -> bool:
    """Whether every instance is ready. Shadows are waited for until they are ready or have failed once: their
    failures are nobody else's."""
    standing = seen.standing
    return standing.are_ready(part.places) and all(standing.has_been_tried(p) for p in part.shadow_places)


def images_of(seen: Seen, fleet: Fleet) -> dict[str, str]:
    """Variant, or variant/container where it has several → what really answers for its image."""
    standing = seen.standing
    found: dict[str, str] = {}
    for place, variant in places_of((Part(fleet),)).items():
        row = standing.at(place)
        if row is None:
            continue
        status = standing.status(row)
        images = status.resolved_images or (status.resolved_image,)
        found |= {key: image for key, image in zip(variant.image_keys, images, strict=False) if image}
    return found


def ready_evidence(seen: Seen, *parts: Part) -> dict[str, Any]:
    """For notes: variant → its ready instances."""
    standing = seen.standing
    ready: dict[str, list[str]] = {}
    for place, variant in places_of(parts).items():
        row = standing.at(place)
        if row is not None and standing.is_ready(place):
            ready.setdefault(variant.name, []).append(row.id)
    return {"ready": ready}


def after(seen: Seen, plan: Plan, now: datetime) -> tuple[str, EndpointSpec, EndpointState]:
    """Status, spec and state when the plan was carried out."""
    status, spec, state = seen.status, seen.spec, _noted(seen, plan, now)
    live = state.fleet
    match plan.outcome:
        case "promote":
            is_new = live is None or live.id != spec.fleet.id
            state = replace(
                state,
                fleet=spec.fleet,
                images=dict(plan.images or {}),
                deployed_at=now,
                problem=None,
                leftover=None,
                is_traced=live is not None and (state.is_traced or is_new),
                next_incarnation=0 if is_new else state.next_incarnation,
            )
            return "InService", spec, state
        case "fail":
            return status, spec, replace(state, problem=plan.problem)
        case "failed":
            return "Failed", spec, state
        case "roll-back":
            return "RollingBack", spec, replace(state, problem=plan.problem)
        case "rolled-back":
            assert live is not None, "only what is in force can be rolled back to"
            is_mixed = state.leftover is not None
            return "UpdateRollbackFailed" if is_mixed else "InService", replace(spec, fleet=live), state
        case "rollback-failed":
            assert live is not None and seen.state.deployment is not None, "a rollback is of a deployment"
            given_up = seen.state.deployment
            left = Leftover(spec.fleet, dict(given_up.activated), dict(given_up.retained))
            state = replace(state, leftover=left, problem=plan.problem)
            return "UpdateRollbackFailed", replace(spec, fleet=live), state
        case _:
            return status, spec, state


def _noted(seen: Seen, plan: Plan, now: datetime) -> EndpointState:
    """What every plan changes: how far the deployment has come, and which incarnations were used."""
    state, deployment = seen.state, plan.deployment
    if deployment is not None and (state.deployment is None or state.deployment.stage != deployment.stage):
        deployment = replace(deployment, stage_since=now)
    retired = [row.slot.incarnation + 1 for row in seen.rows if row.id in plan.retire]
    return replace(
        state,
        deployment=deployment,
        troubles=dict(plan.troubles),
        next_incarnation=max([state.next_incarnation, *retired]),
    )
