"""How far the deployment under way has come, for `clary why` and `clary status`."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.domain.places import InstanceRow


def progress(spec: EndpointSpec, state: EndpointState, rows: Iterable[InstanceRow]) -> dict[str, Any] | None:
    """None while nothing is deployed."""
    deployment = state.deployment
    if deployment is None:
        return None
    ready = Counter(
        row.slot.variant
        for row in rows
        if row.slot.fleet == spec.fleet.id and row.is_wanted and row.phase == "ready"
    )
    since = deployment.stage_since or deployment.started_at
    return {
        "Id": deployment.id,
        "From": state.fleet.config_name if state.fleet is not None else "",
        "To": spec.fleet.config_name,
        "Strategy": spec.policy.strategy,
        "Stage": deployment.stage,
        "Since": since.isoformat(),
        "StartedAt": deployment.started_at.isoformat(),
        "Variants": [
            {
                "Name": variant.name,
                "Activated": deployment.activated.get(variant.name, 0),
                "Ready": ready[variant.name],
                "Wanted": variant.count,
            }
            for variant in spec.fleet.variants
        ],
        "Reason": deployment.reason,
    }
