"""The journal of scaling: what was done about a target and why, in the service's words. Kept for six weeks."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from clary.domain.clock import Clock
from clary.domain.scaling import (
    ACTIVITIES_KEPT_FOR,
    MOST_ACTIVITIES,
    SCALING_ACTIVITY_KIND,
    Activity,
    ActivityStatus,
    NotScaled,
    ScalableTarget,
    activities_parent,
)
from clary.store import Resource, Store, Transaction


def forget_old(store: Store, now: datetime) -> int:
    """Takes away the activities that are too old to be kept, of endpoints that are gone as well; how many."""
    with store.read() as tx:
        everything = tx.resources.all(SCALING_ACTIVITY_KIND)
        old = [each.uid for each in everything if each.created_at < now - ACTIVITIES_KEPT_FOR]
    if old:
        with store.write(on_full_disk=True) as tx:
            for uid in old:
                tx.resources.delete(uid)
    return len(old)


class Journal:
    """Writes inside the transactions of whoever decides."""

    def __init__(self, new_id: Callable[[], str], clock: Clock) -> None:
        self._new_id = new_id
        self._clock = clock

    def begin(self, tx: Transaction, target: Resource, wanted: int, cause: str) -> str:
        """The uid of an activity that waits to be carried out."""
        activity = Activity(
            target.spec_as(ScalableTarget).resource_id,
            f"Setting desired instance count to {wanted}.",
            cause,
            self._clock.now(),
        )
        return self._insert(tx, target, activity, "Pending")

    def note_done(self, tx: Transaction, target: Resource, what: str, cause: str) -> None:
        """Something that was done in this very transaction."""
        now, resource_id = self._clock.now(), target.spec_as(ScalableTarget).resource_id
        activity = Activity(resource_id, f"Setting {what}", cause, now, now, f"Successfully set {what}")
        self._insert(tx, target, activity, "Successful")

    def note_failed(self, tx: Transaction, target: Resource, what: str, cause: str, reason: str) -> None:
        now, resource_id = self._clock.now(), target.spec_as(ScalableTarget).resource_id
        message = f"Failed to set {what}. Reason: {reason}"
        activity = Activity(resource_id, f"Setting {what}", cause, now, now, message)
        self._insert(tx, target, activity, "Failed")

    def note_not_scaled(self, tx: Transaction, target: Resource, cause: str, reason: NotScaled) -> None:
        now, resource_id = self._clock.now(), target.spec_as(ScalableTarget).resource_id
        description = "Attempting to scale due to alarm triggered"
        activity = Activity(resource_id, description, cause, now, now, not_scaled=(reason,))
        self._insert(tx, target, activity, "Unfulfilled")

    def status(self, tx: Transaction, uid: str) -> str:
        found = tx.resources.get(uid)
        return "" if found is None else found.status

    def set_status(self, tx: Transaction, uid: str, status: ActivityStatus) -> None:
        found = tx.resources.get(uid)
        if found is not None:
            tx.resources.update(found, status=status)

    def succeed(self, tx: Transaction, uid: str, wanted: int) -> None:
        done = f"Successfully set desired instance count to {wanted}."
        self.end(tx, uid, "Successful", f"{done} Change successfully fulfilled by sagemaker.")

    def end(self, tx: Transaction, uid: str, status: ActivityStatus, message: str) -> None:
        found = tx.resources.get(uid)
        if found is not None:
            activity = replace(found.spec_as(Activity), ended_at=self._clock.now(), message=message)
            tx.resources.update(found, status=status, spec=activity)

    def _insert(self, tx: Transaction, target: Resource, activity: Activity, status: ActivityStatus) -> str:
        parent = activities_parent(target.account, target.region, activity.resource_id)
        limit = self._clock.now() - ACTIVITIES_KEPT_FOR
        for number, old in enumerate(tx.resources.children(parent, SCALING_ACTIVITY_KIND), start=1):
            if number >= MOST_ACTIVITIES or old.created_at < limit:
                tx.resources.delete(old.uid)
        uid = self._new_id()
        tx.resources.insert(
            uid=uid,
            account=target.account,
            region=target.region,
            kind=SCALING_ACTIVITY_KIND,
            arn="",
            name=uid,
            parent=parent,
            status=status,
            spec=activity,
        )
        return uid
