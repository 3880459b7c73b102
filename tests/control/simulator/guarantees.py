"""What the reconciler guarantees, each of which can be taken away: then the laws must be seen broken."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args
from unittest.mock import patch

from clary.domain import rollout, shifting, updating, watching
from clary.domain.deployments import Deployment
from clary.domain.endpoints import Fleet
from clary.domain.plans import Note, Plan, Seen
from clary.domain.traffic import Layer, traffic
from clary.reconcilers.endpoint import EndpointReconciler

Guarantee = Literal[
    "acknowledged routes", "drained", "proven ready", "bakes", "alarms", "routes first", "written first"
]
GUARANTEES: tuple[Guarantee, ...] = get_args(Guarantee)


def reconciler_without(guarantee: Guarantee | None) -> type[EndpointReconciler]:
    return _RoutesLast if guarantee == "routes first" else EndpointReconciler


@contextmanager
def taken_away(guarantee: Guarantee | None) -> Iterator[None]:
    """As far as it is the decisions' (the world acknowledges or does not, `reconciler_without` has its own class)."""
    with ExitStack() as stack:
        match guarantee:
            case "drained":
                stack.enter_context(patch.object(EndpointReconciler, "_busy", lambda self, rows: set()))
            case "proven ready":
                for module in (updating, rollout):
                    stack.enter_context(patch.object(module, "is_complete", lambda seen, part: True))
            case "bakes":
                stack.enter_context(patch.object(updating, "_is_over", lambda seen, deployment, wait_s: True))
            case "written first":
                stack.enter_context(patch.object(updating, "_shift", _shift_at_once))
            case "alarms":
                stack.enter_context(patch.object(watching, "_alarm", lambda seen: None))
        yield


class _RoutesLast(EndpointReconciler):
    """Retires before the new route is in the gateways."""

    def _route(self, lease: Any, loaded: Any, wanted: Any) -> Any:
        has_retired = any(not r.is_wanted for r in loaded.rows)
        if wanted is not None and loaded.state.route is not None and has_retired:
            return loaded
        return super()._route(lease, loaded, wanted)

    def _let_go(self, lease: Any, loaded: Any) -> Any:
        gone = [row.id for row in loaded.rows if not row.is_wanted]
        if gone:
            self._driver.stop(gone, 0.0)
        return super()._let_go(lease, loaded)


def _shift_at_once(seen: Seen, live: Fleet, plan: Plan, deployment: Deployment, *notes: Note) -> Plan:
    """Traffic moves in the step that writes it down."""
    activated = shifting.next_activation(seen.spec.policy, seen.spec.fleet, deployment.activated)
    moved = replace(deployment, stage="activating", activated=activated)
    layers = (Layer(live), Layer(seen.spec.fleet, None, activated))
    return replace(plan, deployment=moved, traffic=traffic(layers, seen.standing), again_after_s=0.0)
