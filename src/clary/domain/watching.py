"""What a deployment is watched for, and why one is given up.

Alarms count from the start to the end of the termination wait. One that is missing counts too: whoever asked for an
update to be watched does not want it to go on unwatched. An alarm without enough data is no reason.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from clary.domain.deployments import Deployment
from clary.domain.endpoints import Fleet, Problem, Variant
from clary.domain.failures import alarm_problem, capacity_problem, deployment_problem, overdue_problem
from clary.domain.places import MOST_FAILURES, Part, Place
from clary.domain.plans import Seen

ALARM_LOOK_S = 1.0
"""How often alarms are looked at."""


def problem_of(
    seen: Seen, fleet: Fleet, places: Mapping[Place, Variant], serving: Collection[Place] = ()
) -> Problem | None:
    """Why these places cannot be filled, if that is known.

    An instance that ended without ever having been ready has said why. One that was ready, or is in a place that
    serves already, is tried again: three failures of one place are too many.
    """
    for variant in (*fleet.variants, *fleet.shadows):
        if variant.accelerators > seen.accelerators:
            return capacity_problem(seen.name, variant, seen.accelerators, seen.command_options)
    standing = seen.standing
    for place, variant in places.items():
        row = standing.at(place)
        if row is None or not standing.is_dead(row):
            continue
        is_serving = place in serving
        status = standing.status(row)
        has_said_why = status.phase == "exited" and not is_serving and not standing.was_ready(row)
        if has_said_why or standing.failures_after(row, forgives=is_serving) >= MOST_FAILURES:
            return deployment_problem(seen.name, variant, status, seen.command_options)
    return None


def objection(seen: Seen, deployment: Deployment, green: Part) -> Problem | None:
    """Why the update under way is to be rolled back, if it is."""
    return problem_of(seen, green.fleet, green.places) or _alarm(seen) or _overdue(seen, deployment)


def next_look_s(seen: Seen, deployment: Deployment, wait_s: float) -> float | None:
    """When something may have happened that nobody reports: an alarm, the end of this stage or of all the time."""
    policy = seen.spec.policy
    waits = [ALARM_LOOK_S] if policy.alarms else []
    for since, length_s in (
        (deployment.stage_since, wait_s),
        (deployment.started_at, policy.maximum_execution_s),
    ):
        if since is not None and length_s is not None:
            waits.append(length_s - (seen.now - since) / timedelta(seconds=1))
    return min((wait for wait in waits if wait > 0.0), default=None)


def evidence_of(problem: Problem) -> dict[str, Any]:
    """What a record says of it."""
    found: dict[str, Any] = {"reason": problem.reason}
    if problem.variant:
        found["variant"] = problem.variant
    if problem.instance_id:
        found["instance"] = problem.instance_id
    if problem.failure is not None:
        found["code"] = problem.failure.code
        found["log_tail"] = list(problem.failure.log_tail[-10:])
    return found


def alarm_states(seen: Seen) -> dict[str, str]:
    return {name: seen.alarms.get(name, "deleted") for name in seen.spec.policy.alarms}


def _alarm(seen: Seen) -> Problem | None:
    bad = {name: state for name, state in alarm_states(seen).items() if state in ("ALARM", "deleted")}
    return alarm_problem(seen.name, bad, seen.command_options, seen.alarm_reasons) if bad else None


def _overdue(seen: Seen, deployment: Deployment) -> Problem | None:
    limit_s = seen.spec.policy.maximum_execution_s
    if limit_s is None or seen.now - deployment.started_at < timedelta(seconds=limit_s):
        return None
    return overdue_problem(seen.name, limit_s, deployment.stage, seen.command_options)
