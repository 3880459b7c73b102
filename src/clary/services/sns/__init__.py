"""SNS: topics (`topics`), their HTTP subscribers (`subscriptions`, `attributes`) and what is published (`publishing`).

What is published lies in the store when the answer is given; a reconciler brings it to the endpoints.
"""

from collections.abc import Callable, Mapping

from clary.domain.clock import Clock
from clary.services.sns.publishing import Publishing
from clary.services.sns.subscriptions import Subscriptions
from clary.services.sns.topics import Topics
from clary.store import Store

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "ConfirmSubscription": ("AuthenticateOnUnsubscribe: whoever unsubscribes must be somebody here anyway",),
    "CreateTopic": ("Attributes.Policy: who may publish is what IAM's policies say",),
    "SetTopicAttributes": ("Policy: who may publish is what IAM's policies say",),
}
"""Operation → members that change nothing here."""


def resources(
    store: Store, clock: Clock, new_uid: Callable[[], str], new_id: Callable[[], str]
) -> tuple[object, ...]:
    """Everything that answers an operation of `sns`. `new_id` makes what clients see as ids."""
    return (
        Topics(store, new_uid),
        Subscriptions(store, clock, new_uid, new_id),
        Publishing(store, clock, new_id),
    )
