"""Taking scalable targets away, with all that hangs on them: inside a transaction of whoever needs it gone."""

from clary.domain.scaling import SCALING_POLICY_KIND, SCHEDULED_ACTION_KIND, ScalingPolicy
from clary.store import Resource, Transaction
from clary.store.alarms import delete_alarm


def deregister(tx: Transaction, target: Resource) -> None:
    """The target, its policies with their alarms, and its scheduled actions. Its activities stay."""
    for policy in tx.resources.children(target.arn, SCALING_POLICY_KIND):
        remove_policy(tx, policy)
    for action in tx.resources.children(target.arn, SCHEDULED_ACTION_KIND):
        tx.resources.delete(action.uid)
    tx.resources.delete(target.uid)


def remove_policy(tx: Transaction, policy: Resource) -> None:
    remove_alarms(tx, policy)
    tx.resources.delete(policy.uid)


def remove_alarms(tx: Transaction, policy: Resource) -> None:
    tracking = policy.spec_as(ScalingPolicy).tracking
    if tracking is None:
        return
    for name in (tracking.high_alarm, tracking.low_alarm):
        delete_alarm(tx, policy.account, policy.region, name)
