"""Scalable targets: sees what their policies, schedules and limits ask for, and has the endpoint's counts changed.

The order of the steps is what keeps the promises:

1. What was scheduled and is due: new limits, the note that it is done and its activity are one transaction.
2. The activity under way: over when the endpoint has settled. Nothing else is begun before that.
3. A decision, from everything as it is now. Its activity is stored as `Pending` before anything is asked for.
4. The public operation. It names a number and not a difference, so asking twice is asking once; an endpoint that is
   updating takes no other update, and the activity waits, is tried again, or is overridden by a later decision.

Being killed between any two steps is harmless: the next try reads everything and decides again.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.domain.scaling import (
    INSTANCE_COUNT,
    LOW_PERIODS,
    NAMESPACE,
    SCALABLE_TARGET_KIND,
    ActivityStatus,
    Change,
    Timing,
)
from clary.domain.scaling_decisions import Decision, decide
from clary.reconcilers.base import LEASE_S
from clary.reconcilers.scaling_activities import Journal
from clary.reconcilers.scaling_readings import Readings
from clary.reconcilers.scaling_schedules import apply_due, next_due
from clary.reconcilers.scaling_target import Loaded, load
from clary.reconcilers.scaling_views import Scene, Sight, Viewer
from clary.store import Lease, Store
from clary.telemetry.store import MetricStore
from clary.wire.operations import Caller

log = logging.getLogger(__name__)

HEARTBEAT_S = 60.0
AGAIN_UNDER_WAY_S = 0.5
AGAIN_BLOCKED_S = 1.0
AGAIN_PRESSED_S = 5.0
"""While an alarm is on: as often as there are new values."""

RETRY_AFTER = timedelta(seconds=30)
"""After a change that was refused or failed. Each that follows at once waits twice as long as the one before."""

LONGEST_RETRY = timedelta(minutes=30)


class ScalableTargetReconciler:
    kind = SCALABLE_TARGET_KIND
    settled: frozenset[str] = frozenset()

    def __init__(
        self,
        store: Store,
        metrics: MetricStore,
        call: Caller,
        clock: Clock,
        new_id: Callable[[], str],
        timing: Timing = "fast",
    ) -> None:
        self._store = store
        self._call = call
        self._clock = clock
        self._viewer = Viewer(Readings(metrics, timing), timing)
        self._journal = Journal(new_id, clock)
        self._started_at = clock.now()

    def reconcile(self, lease: Lease) -> float | None:
        loaded = self._load(lease.uid)
        if loaded is None:
            return None
        if loaded.endpoint is None:
            self._deregister(loaded)
            return None
        if self._run_schedules(lease, loaded):
            return 0.0
        if not loaded.is_serving:
            return HEARTBEAT_S if not loaded.is_busy else AGAIN_BLOCKED_S
        if not loaded.state.activity:
            return self._decide(lease, loaded)
        if not self._conclude(lease, loaded):
            return AGAIN_UNDER_WAY_S
        again = self._load(lease.uid)
        return 0.0 if again is None or again.endpoint is None else self._decide(lease, again)

    def _load(self, uid: str) -> Loaded | None:
        with self._store.read() as tx:
            return load(tx, uid)

    def _deregister(self, loaded: Loaded) -> None:
        """The endpoint is gone, and what scaled it goes too."""
        self._call(
            "application-autoscaling",
            "DeregisterScalableTarget",
            {
                "ServiceNamespace": NAMESPACE,
                "ResourceId": loaded.spec.resource_id,
                "ScalableDimension": INSTANCE_COUNT,
            },
            account=loaded.resource.account,
            region=loaded.resource.region,
        )
        log.info("a target without an endpoint is deregistered", extra={"target": loaded.spec.resource_id})

    def _run_schedules(self, lease: Lease, loaded: Loaded) -> bool:
        now = self._clock.now()
        if not any(planned.is_due(now) for planned in loaded.planned):
            return False
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            apply_due(tx, loaded.resource, loaded.spec, loaded.planned, self._journal, now)
        return True

    def _conclude(self, lease: Lease, loaded: Loaded) -> bool:
        """Whether nothing is under way any more. What is still `Pending` is decided anew."""
        state, now = loaded.state, self._clock.now()
        if loaded.is_busy:
            if loaded.wanted == state.wanted:
                self._set_status(lease, loaded, "InProgress")
            return False
        with self._store.read() as tx:
            activity = self._journal.status(tx, state.activity)
        if loaded.current == state.wanted:
            self._finish(lease, loaded, now)
        elif activity == "Pending":
            return True
        elif loaded.failure:
            self._fail(lease, loaded, loaded.failure)
        else:  # somebody asked for another number meanwhile
            self._drop(lease, loaded, "Overridden")
        return True

    def _decide(self, lease: Lease, loaded: Loaded) -> float:
        now = self._clock.now()
        sight = self._viewer.see(self._scene(loaded, now))
        decision = decide(loaded.spec, loaded.state, loaded.capacity, sight.views)
        waits = loaded.state.retry_at is not None and now < loaded.state.retry_at
        if waits and loaded.limits == loaded.state.limits:  # new limits may be what helps
            decision = replace(decision, capacity=None, not_scaled=None)
        if decision.capacity is None:
            self._stay(lease, loaded, decision)
            return self._next_look(loaded, sight, decision, now)
        loaded = self._begin(lease, loaded, decision)
        if loaded.is_busy:
            return AGAIN_BLOCKED_S
        return self._ask(lease, loaded)

    def _scene(self, loaded: Loaded, now: datetime) -> Scene:
        # Reports wait for a control process that was away: it has them a minute after it started.
        return Scene(
            state=loaded.state,
            current=loaded.capacity,
            policies=loaded.policies,
            alarms=loaded.alarms,
            now=now,
            knows_quiet_since=self._started_at - timedelta(minutes=LOW_PERIODS - 1),
        )

    def _stay(self, lease: Lease, loaded: Loaded, decision: Decision) -> None:
        """Nothing changes. Why not is noted once, until something changes or there is another reason."""
        state = replace(loaded.state, limits=loaded.limits)
        by, reason = decision.by, decision.not_scaled
        if by is not None and reason is not None:
            state = replace(state, not_scaled=(by.policy, by.alarm, reason.code))
        if state.activity:  # Pending, and no longer wanted
            state = replace(state, activity="")
        if state == loaded.state:
            return
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            if loaded.state.activity:
                self._journal.end(tx, loaded.state.activity, "Overridden", "It is no longer needed.")
            if by is not None and reason is not None and state.not_scaled != loaded.state.not_scaled:
                self._journal.note_not_scaled(tx, loaded.resource, by.cause, reason)
            tx.resources.update(loaded.resource, state=state)

    def _begin(self, lease: Lease, loaded: Loaded, decision: Decision) -> Loaded:
        """Stores what is wanted, before anybody is asked for it."""
        assert decision.capacity is not None, "there is something to begin"
        state = loaded.state
        if state.activity and state.wanted == decision.capacity:
            return loaded
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            if state.activity:
                self._journal.end(tx, state.activity, "Overridden", "A later decision took its place.")
            uid = self._journal.begin(tx, loaded.resource, decision.capacity, decision.cause)
            state = replace(
                state,
                activity=uid,
                wanted=decision.capacity,
                base=None if decision.by is None else decision.by.base,
                limits=loaded.limits,
                not_scaled=None,
                retry_at=None,
            )
            resource = tx.resources.update(loaded.resource, state=state)
            if loaded.endpoint is not None:
                told = {"variant": loaded.spec.variant, "capacity": state.wanted, "cause": decision.cause}
                tx.events.add(loaded.endpoint.uid, "scaling asked for", **told)
        log.info(
            "a capacity is changed",
            extra={
                "target": loaded.spec.resource_id,
                "before": loaded.current,
                "after": state.wanted,
                "cause": decision.cause,
            },
        )
        return replace(loaded, resource=resource, state=state)

    def _ask(self, lease: Lease, loaded: Loaded) -> float:
        variant = {"VariantName": loaded.spec.variant, "DesiredInstanceCount": loaded.state.wanted}
        try:
            self._call(
                "sagemaker",
                "UpdateEndpointWeightsAndCapacities",
                {"EndpointName": loaded.spec.endpoint, "DesiredWeightsAndCapacities": [variant]},
                account=loaded.resource.account,
                region=loaded.resource.region,
            )
        except Fault as fault:
            if not fault.is_senders:
                raise
            again = self._load(loaded.resource.uid)
            if again is None or _has_moved(loaded, again):
                return AGAIN_BLOCKED_S  # somebody was faster: it is tried again
            return self._fail(lease, again, fault.message).total_seconds()
        self._set_status(lease, loaded, "InProgress")
        return AGAIN_UNDER_WAY_S

    def _set_status(self, lease: Lease, loaded: Loaded, status: ActivityStatus) -> None:
        with self._store.read() as tx:
            if self._journal.status(tx, loaded.state.activity) == status:
                return
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            self._journal.set_status(tx, loaded.state.activity, status)

    def _finish(self, lease: Lease, loaded: Loaded, now: datetime) -> None:
        state = replace(loaded.state, activity="", refusals=0)
        if state.base is not None:
            change = Change(now, state.base, loaded.current)
            is_out = change.after > change.before
            state = replace(state, last_out=change) if is_out else replace(state, last_in=change)
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            self._journal.succeed(tx, loaded.state.activity, loaded.state.wanted)
            tx.resources.update(loaded.resource, state=state)

    def _fail(self, lease: Lease, loaded: Loaded, reason: str) -> timedelta:
        """After which time it may be tried again."""
        wanted = loaded.state.wanted
        message = f"Failed to set desired instance count to {wanted}. Reason: {reason}"
        pause = retry_after(loaded.state.refusals)
        state = replace(
            loaded.state,
            activity="",
            retry_at=self._clock.now() + pause,
            refusals=loaded.state.refusals + 1,
        )
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            self._journal.end(tx, loaded.state.activity, "Failed", message)
            tx.resources.update(loaded.resource, state=state)
        log.warning(
            "a capacity could not be changed", extra={"target": loaded.spec.resource_id, "reason": reason}
        )
        return pause

    def _drop(self, lease: Lease, loaded: Loaded, status: ActivityStatus) -> None:
        with self._store.write() as tx:
            tx.work.hold(lease, LEASE_S)
            self._journal.end(tx, loaded.state.activity, status, "The capacity was changed by somebody else.")
            tx.resources.update(loaded.resource, state=replace(loaded.state, activity="", refusals=0))

    def _next_look(self, loaded: Loaded, sight: Sight, decision: Decision, now: datetime) -> float:
        moments = [sight.look_at, next_due(loaded.planned, now), loaded.state.retry_at]
        waits = [(moment - now).total_seconds() for moment in moments if moment is not None and moment > now]
        # An idle endpoint at its minimum has its low alarm on all night.
        is_idle = decision.not_scaled is not None and decision.not_scaled.code == "AlreadyAtMinCapacity"
        is_at_rest = (is_idle or not sight.is_pressed) and not loaded.is_busy
        return max(0.05, min([HEARTBEAT_S if is_at_rest else AGAIN_PRESSED_S, *waits]))


def _has_moved(before: Loaded, now: Loaded) -> bool:
    """Whether the endpoint is another one than it was: an update of somebody else may be over already."""
    if before.endpoint is None or now.endpoint is None:
        return True
    return now.endpoint.version != before.endpoint.version


def retry_after(refusals: int) -> timedelta:
    """How long to wait after a refusal that so many came before: the journal keeps room for what else happens."""
    return min(RETRY_AFTER * (1 << min(refusals, 16)), LONGEST_RETRY)
