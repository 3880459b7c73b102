"""What an alarm does with a scaling policy: it wishes the policy's target to be looked at."""

import logging
from dataclasses import replace

from clary.domain.alarms import AlarmSpec, StateChange
from clary.domain.scaling import (
    SCALABLE_TARGET_KIND,
    SCALING_POLICY_KIND,
    PolicyState,
    ScalingPolicy,
    policy_uid,
)
from clary.store import Resource, Transaction

log = logging.getLogger(__name__)


class ScalingAction:
    """A `clary.store.alarms.AlarmAction`. Repeated while the state lasts, as CloudWatch does with scaling policies: a
    policy that was put into an alarm which is on already is set off so."""

    repeats = True

    def takes(self, arn: str) -> bool:
        return policy_uid(arn) is not None

    def fire(self, tx: Transaction, alarm: Resource, spec: AlarmSpec, arn: str, change: StateChange) -> None:
        policy = tx.resources.get(policy_uid(arn) or "")
        if policy is None or policy.kind != SCALING_POLICY_KIND or policy.arn != arn:
            log.info(
                "an alarm names a scaling policy that is not there", extra={"alarm": alarm.arn, "policy": arn}
            )
            return
        is_new = change.old != change.new
        if policy.spec_as(ScalingPolicy).tracking is None:
            is_new = _note_trigger(tx, policy, alarm, change) or is_new
        if is_new:  # later the target is looked at again by itself, as long as the state lasts
            tx.work.wish(SCALABLE_TARGET_KIND, policy.parent.rpartition("/")[2])


def _note_trigger(tx: Transaction, policy: Resource, alarm: Resource, change: StateChange) -> bool:
    """Whether the alarm, in this state, is news to the policy."""
    state = policy.state_as(PolicyState)
    if state.triggers.get(alarm.name) == change.new:
        return False
    tx.resources.update(policy, state=replace(state, triggers={**state.triggers, alarm.name: change.new}))
    return True
