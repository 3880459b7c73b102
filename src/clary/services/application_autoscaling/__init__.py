"""Application Auto Scaling of endpoint variants: targets, policies, schedules. `resources` makes all that answers.

Handlers write rows and wishes; the reconciler of scalable targets (`clary.reconcilers.scaling`) changes capacities.
"""

from collections.abc import Callable, Mapping

from clary.domain.clock import Clock
from clary.domain.scaling import Timing
from clary.services.application_autoscaling.activities import Activities
from clary.services.application_autoscaling.policies import Policies
from clary.services.application_autoscaling.scheduled_actions import ScheduledActions
from clary.services.application_autoscaling.tags import Tags
from clary.services.application_autoscaling.targets import Targets
from clary.store import Store

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "RegisterScalableTarget": ("RoleARN: any role is taken, nothing is asked of it",),
}
"""Operation → members that are kept, and shown where AWS shows them, and change nothing here."""


def resources(
    store: Store, clock: Clock, new_id: Callable[[], str], timing: Timing = "fast"
) -> tuple[object, ...]:
    """Everything that answers an operation of `application-autoscaling`. `new_id` gives 32 hexadecimal digits."""
    return (
        Targets(store, clock, new_id),
        Policies(store, clock, new_id, timing),
        ScheduledActions(store, clock, new_id),
        Activities(store),
        Tags(store),
    )
