"""Scheduled actions that are due: each gives its target other limits, once, however late it is."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from clary.domain.scaling import ScalableTarget, ScheduledAction, ScheduledState
from clary.domain.scheduled_scaling import last_run, next_run
from clary.domain.schedules import BadSchedule
from clary.reconcilers.scaling_activities import Journal
from clary.store import Resource, Transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """A scheduled action as it was read."""

    resource: Resource
    spec: ScheduledAction
    state: ScheduledState

    @classmethod
    def of(cls, resource: Resource) -> "Planned":
        return cls(resource, resource.spec_as(ScheduledAction), resource.state_as(ScheduledState))

    def next_run(self, after: datetime) -> datetime | None:
        try:
            return next_run(self.spec, after)
        except BadSchedule as error:  # its time zone is no longer known to this machine
            log.warning("a schedule cannot be read", extra={"action": self.resource.arn, "error": str(error)})
            return None

    def is_due(self, now: datetime) -> bool:
        due = self.next_run(self.state.seen_until)
        return due is not None and due <= now


def next_due(planned: Iterable[Planned], now: datetime) -> datetime | None:
    return min((due for each in planned if (due := each.next_run(now)) is not None), default=None)


def apply_due(
    tx: Transaction,
    target: Resource,
    spec: ScalableTarget,
    planned: Sequence[Planned],
    journal: Journal,
    now: datetime,
) -> None:
    """Carries out what is due, in the order in which it was, and notes it. Suspended schedules pass by."""
    due = [(each, each.next_run(each.state.seen_until)) for each in planned]
    late = [(last_run(each.spec, each.state.seen_until, now), each) for each, at in due if at and at <= now]
    for _, each in sorted(((at, each) for at, each in late if at), key=lambda pair: pair[0]):
        tx.resources.update(each.resource, state=ScheduledState(now))
        if not spec.suspended.scheduled:
            spec = _limited(tx, target, spec, each.spec, journal)
    if spec != target.spec_as(ScalableTarget):
        tx.resources.update(target, spec=spec)


def _limited(
    tx: Transaction, target: Resource, spec: ScalableTarget, action: ScheduledAction, journal: Journal
) -> ScalableTarget:
    least = spec.min_capacity if action.min_capacity is None else action.min_capacity
    most = spec.max_capacity if action.max_capacity is None else action.max_capacity
    given = (("min", action.min_capacity), ("max", action.max_capacity))
    what = " and ".join(f"{word} capacity to {value}" for word, value in given if value is not None)
    cause = f"scheduled action name {action.name} was triggered"
    if least > most:
        reason = f"the minimum capacity {least} would be above the maximum capacity {most}."
        journal.note_failed(tx, target, what, cause, reason)
        return spec
    journal.note_done(tx, target, what, cause)
    return replace(spec, min_capacity=least, max_capacity=most)
