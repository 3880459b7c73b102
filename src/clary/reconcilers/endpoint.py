"""Endpoints: observe, let `domain.rollout` decide, carry the plan out.

The order of the steps is what keeps the promises:

1. The route first. A new one is stored, published and acknowledged by every gateway before anything else: so
   `InService` is never shown too early, and what is retired below takes no new requests.
2. The records, in one transaction that the lease guards: status, new instances, what is retired.
3. Starts: an instance is on record before it runs, so that none is lost and none runs twice.
4. Retirements: drained, stopped, seen gone, removed, and only then forgotten.

Being killed between any two steps is harmless: the next try reads everything and decides again.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from clary.domain.alarms import ALARM_KIND, AlarmState
from clary.domain.clock import Clock
from clary.domain.deployments import DeploymentStep, Verdict
from clary.domain.endpoints import EndpointSpec, EndpointState, endpoint_key, instance_spec
from clary.domain.instances import InstanceId, InstanceStatus
from clary.domain.places import InstanceRow
from clary.domain.plans import Outcome, Plan, Seen, after
from clary.domain.resources import ENDPOINT
from clary.domain.rollout import decide, outlook
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.domain.traffic import Traffic
from clary.drivers.base import Driver, DriverError, Handle
from clary.reconcilers import deployment_records
from clary.reconcilers.base import LEASE_S, Routing
from clary.store import Lease, Resource, Store, Transaction

log = logging.getLogger(__name__)

MOST_STEPS = 10
DRAIN_S = 0.5
AGAIN_WHEN_BUSY_S = 0.25
AGAIN_WHEN_UNKNOWN_S = 0.25
"""While nobody can say how long a deployment will take: somebody may wait for its outlook."""

UNUSED_GRACE_S = 2.0
"""The stop of an instance of a deployment that failed: it never had a request to finish."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    resource: Resource
    spec: EndpointSpec
    state: EndpointState
    rows: tuple[InstanceRow, ...]
    statuses: Mapping[InstanceId, InstanceStatus]
    alarms: Mapping[str, str]
    alarm_reasons: Mapping[str, str]

    @property
    def key(self) -> EndpointKey:
        return endpoint_key(self.resource.account, self.resource.region, self.resource.name)


class EndpointReconciler:
    kind = ENDPOINT.name
    settled = frozenset({"Failed"})  # shown only when everything of it is gone

    def __init__(
        self,
        store: Store,
        driver: Driver,
        routing: Routing,
        clock: Clock,
        *,
        invocation_timeout_s: float = 60.0,
        stop_grace_s: float = 30.0,
        zones: int = 1,
        tell: Callable[[Resource, Verdict], None] = lambda endpoint, verdict: None,
        command_options: str = "",
    ) -> None:
        """`tell` hears of every deployment's end, after it was written down: for metrics."""
        self._store = store
        self._driver = driver
        self._routing = routing
        self._clock = clock
        self._invocation_timeout_s = invocation_timeout_s
        self._stop_grace_s = stop_grace_s
        self._zones = zones
        self._tell = tell
        self._command_options = command_options

    def reconcile(self, lease: Lease) -> float | None:
        """Steps as long as each says that the next can follow at once."""
        again_s: float | None = 0.0
        for _ in range(MOST_STEPS):
            again_s = self._step(lease)
            if again_s != 0.0:
                break
        return again_s

    def _step(self, lease: Lease) -> float | None:
        loaded = self._load(lease.uid)
        if loaded is None:
            return None
        seen = self._seen(loaded)
        plan = decide(seen)
        if not plan.keeps_route:
            loaded = self._route(lease, loaded, plan.traffic)
        if plan.outcome == "gone":
            self._forget(lease, loaded)
            return None
        loaded = self._record(lease, loaded, plan)
        self._start(lease, loaded)
        left_s = self._let_go(lease, loaded)
        if plan.outcome != "continue":
            return 0.0
        looks_s = (
            AGAIN_WHEN_UNKNOWN_S if _outlook_matters(loaded) and loaded.state.outlook == "unknown" else None
        )
        return min((s for s in (plan.again_after_s, left_s, looks_s) if s is not None), default=None)

    def _seen(self, loaded: _Loaded) -> Seen:
        return Seen(
            name=loaded.resource.name,
            status=loaded.resource.status,
            spec=loaded.spec,
            state=loaded.state,
            rows=loaded.rows,
            statuses=loaded.statuses,
            now=self._clock.now(),
            accelerators=self._driver.abilities.accelerators,
            alarms=loaded.alarms,
            alarm_reasons=loaded.alarm_reasons,
            command_options=self._command_options,
        )

    def _load(self, uid: str) -> _Loaded | None:
        with self._store.read() as tx:
            resource = tx.resources.get(uid)
            rows = tuple(tx.instances.of(uid))
            spec = None if resource is None else resource.spec_as(EndpointSpec)
            alarms = [] if resource is None or spec is None else _alarms(tx, resource, spec)
        if resource is None or spec is None:
            return None
        statuses = self._driver.inspect([row.id for row in rows]) if rows else {}
        return _Loaded(
            resource,
            spec,
            resource.state_as(EndpointState),
            rows,
            statuses,
            alarms={alarm.name: alarm.status for alarm in alarms},
            alarm_reasons={alarm.name: alarm.state_as(AlarmState).reason for alarm in alarms},
        )

    def _route(self, lease: Lease, loaded: _Loaded, wanted: Traffic | None) -> _Loaded:
        """Has every gateway know the route (or that there is none). What is returned is not yet stored."""
        state = loaded.state
        if wanted is None:
            if state.route is None:
                return loaded
            self._routing.withdraw(loaded.key)
            return replace(loaded, state=replace(state, route=None, is_route_acked=False))
        if state.route is None or _traffic(state.route) != wanted:
            loaded = self._intend(lease, loaded, wanted)
        assert loaded.state.route is not None, "an intended route is kept"
        self._routing.publish(loaded.state.route)
        return replace(loaded, state=replace(loaded.state, is_route_acked=True))

    def _intend(self, lease: Lease, loaded: _Loaded, wanted: Traffic) -> _Loaded:
        """Stores a route before it is published: whatever crashes, a generation means one route for ever."""
        generation = loaded.state.route_generation + 1
        route = EndpointRoute(
            key=loaded.key,
            name=loaded.resource.name,
            uid=loaded.resource.uid,
            generation=generation,
            variants=wanted.variants,
            invocation_timeout_s=self._invocation_timeout_s,
            shadows=wanted.shadows,
            capture=wanted.capture,
        )
        state = replace(loaded.state, route=route, route_generation=generation, is_route_acked=False)
        with self._store.write(on_full_disk=True) as tx:
            tx.work.hold(lease, LEASE_S)
            resource = tx.resources.update(loaded.resource, state=state)
        return replace(loaded, resource=resource, state=state)

    def _forget(self, lease: Lease, loaded: _Loaded) -> None:
        deployment = loaded.state.deployment
        with self._store.write(on_full_disk=True) as tx:
            tx.work.hold(lease, LEASE_S)
            if deployment is not None:
                deployment_records.append(tx, deployment.id, (), "superseded", self._clock.now())
            tx.resources.delete(loaded.resource.uid)
        log.info("endpoint deleted", extra={"endpoint": loaded.resource.arn})

    def _record(self, lease: Lease, loaded: _Loaded, plan: Plan) -> _Loaded:
        seen = self._seen(loaded)
        status, spec, state = after(seen, plan, seen.now)
        if _outlook_matters(loaded) and plan.outcome == "continue":
            state = replace(state, outlook=outlook(seen, loaded.rows))
        changes_resource = (status, spec, state) != (
            loaded.resource.status,
            loaded.spec,
            loaded.resource.state_as(EndpointState),
        )
        changed = [(row, new) for row in loaded.rows if (new := _status(loaded, row)).phase != row.phase]
        if not (changes_resource or changed or plan.create or plan.retire or plan.notes):
            return loaded
        resource = loaded.resource
        with self._store.write(on_full_disk=True) as tx:
            tx.work.hold(lease, LEASE_S)
            if changes_resource:
                resource = tx.resources.update(
                    resource,
                    status=status if status != resource.status else None,
                    spec=spec if spec != loaded.spec else None,
                    state=state,
                )
            for row, new in changed:
                tx.instances.set_phase(row.id, new.phase)
                tx.events.add(resource.uid, f"instance {new.phase}", **_instance_detail(row, new))
            self._insert(tx, loaded, plan)
            tx.instances.retire(plan.retire)
            self._note(tx, loaded, state, plan, changed)
            rows = tuple(tx.instances.of(resource.uid))
        if plan.outcome in _VERDICTS and _record_id(loaded, state):
            self._tell(resource, _VERDICTS[plan.outcome])
        return replace(loaded, resource=resource, spec=spec, state=state, rows=rows)

    def _note(
        self,
        tx: Transaction,
        loaded: _Loaded,
        state: EndpointState,
        plan: Plan,
        changed: list[tuple[InstanceRow, InstanceStatus]],
    ) -> None:
        """Tells the time line, the log and the deployment's record what was done and seen."""
        now = self._clock.now()
        routed = {"route_generation": state.route_generation}
        notes = [
            DeploymentStep(now, note.step, {**note.evidence, **(routed if note.is_routed else {})})
            for note in plan.notes
        ]
        for note in notes:
            tx.events.add(loaded.resource.uid, note.step, **note.evidence)
            level = logging.WARNING if plan.problem is not None else logging.INFO
            fields = {"endpoint": loaded.resource.arn, "step": note.step}
            if plan.problem is not None:
                fields["reason"] = plan.problem.reason
            log.log(level, "endpoint moved on", extra=fields)
        for variant, text in plan.troubles.items():
            if variant not in loaded.state.troubles:
                tx.events.add(loaded.resource.uid, "crash loop", variant=variant, detail=text)
        ended = [
            DeploymentStep(now, f"instance {new.phase}", _instance_detail(row, new))
            for row, new in changed
            if row.is_wanted and new.phase in ("exited", "unhealthy", "missing")
        ]
        if id_ := _record_id(loaded, state):
            verdict = _VERDICTS.get(plan.outcome)
            reason = state.problem.reason if verdict and state.problem is not None else ""
            deployment_records.append(tx, id_, (*ended, *notes), verdict, now, reason)

    def _insert(self, tx: Transaction, loaded: _Loaded, plan: Plan) -> None:
        for new in plan.create:
            resource = loaded.resource
            spec = instance_spec(loaded.key, resource.name, resource.uid, new.slot, new.variant, self._zones)
            start_at = self._clock.now() + timedelta(seconds=new.delay_s)
            tx.instances.insert(resource.uid, new.slot, new.failures, start_at, spec)
            tx.events.add(
                resource.uid,
                "instance wanted",
                variant=new.slot.variant,
                instance=spec.instance_id,
                incarnation=new.slot.incarnation,
                zone=spec.zone,
                delay_s=new.delay_s,
            )

    def _start(self, lease: Lease, loaded: _Loaded) -> None:
        now = self._clock.now()
        due = [row.id for row in loaded.rows if row.is_wanted and not row.is_started and row.start_at <= now]
        if not due:
            return
        with self._store.read() as tx:
            specs = [spec for id_ in due if (spec := tx.instances.spec(id_)) is not None]
        handles: dict[InstanceId, Handle] = {}
        refusal: DriverError | None = None
        for spec in specs:
            try:
                handles[spec.instance_id] = self._driver.start(spec)
            except DriverError as error:
                refusal = error  # those that were begun are noted first
                break
        with self._store.write(on_full_disk=True) as tx:
            tx.work.hold(lease, LEASE_S)
            for id_, handle in handles.items():
                tx.instances.set_handle(id_, handle)
        log.info("instances started", extra={"endpoint": loaded.resource.arn, "instances": list(handles)})
        if refusal is not None:
            raise refusal

    def _let_go(self, lease: Lease, loaded: _Loaded) -> float | None:
        """Moves what is retired one step on; when to look again, 0.0 when everything retired is gone."""
        leaving = [row for row in loaded.rows if not row.is_wanted]
        if not leaving:
            return None
        ended = [row.id for row in leaving if not _status(loaded, row).is_live]
        running = [row for row in leaving if _status(loaded, row).is_live]
        if ended:
            self._driver.remove(ended)
            with self._store.write(on_full_disk=True) as tx:
                tx.work.hold(lease, LEASE_S)
                tx.instances.delete(ended)
        if not running:
            return 0.0
        to_stop = [row for row in running if _status(loaded, row).phase != "stopping"]
        busy = self._busy(to_stop)
        if idle := [row.id for row in to_stop if row.id not in busy]:
            never_served = loaded.state.fleet is None
            self._driver.stop(idle, UNUSED_GRACE_S if never_served else self._stop_grace_s)
        return AGAIN_WHEN_BUSY_S if busy else None

    def _busy(self, rows: list[InstanceRow]) -> set[InstanceId]:
        """Those with requests under way, unless they had the time that any request may take."""
        if not rows:
            return set()
        limit = self._clock.now() - timedelta(seconds=self._invocation_timeout_s)
        overdue = {row.id for row in rows if row.gone_at is not None and row.gone_at <= limit}
        asked = [row.id for row in rows if row.id not in overdue]
        return self._routing.drain(asked, DRAIN_S) if asked else set()


_VERDICTS: Mapping[Outcome, Verdict] = {
    "promote": "succeeded",
    "failed": "failed",
    "rolled-back": "rolled-back",
    "rollback-failed": "rollback-failed",
}


def _record_id(loaded: _Loaded, state: EndpointState) -> str:
    """The record of the deployment under way, or just ended; empty while only numbers change."""
    deployment = state.deployment or loaded.state.deployment
    if deployment is not None:
        return deployment.id
    is_creation = loaded.resource.status == "Creating" and loaded.state.fleet is None
    return loaded.spec.deployment_id if is_creation else ""


def _alarms(tx: Transaction, endpoint: Resource, spec: EndpointSpec) -> list[Resource]:
    """Those that watch the update under way. Their names keep their case."""
    if endpoint.status != "Updating":
        return []
    found = (
        tx.resources.find(endpoint.account, endpoint.region, ALARM_KIND, name) for name in spec.policy.alarms
    )
    return [
        alarm for alarm, name in zip(found, spec.policy.alarms, strict=True) if alarm and alarm.name == name
    ]


def _traffic(route: EndpointRoute) -> Traffic:
    return Traffic(route.variants, route.shadows, route.capture)


def _outlook_matters(loaded: _Loaded) -> bool:
    return loaded.resource.status in ("Creating", "Updating") and loaded.state.problem is None


def _status(loaded: _Loaded, row: InstanceRow) -> InstanceStatus:
    return loaded.statuses.get(row.id) or InstanceStatus(row.id, "missing")


def _instance_detail(row: InstanceRow, status: InstanceStatus) -> dict[str, object]:
    detail: dict[str, object] = {"variant": row.slot.variant, "instance": row.id}
    if status.detail:
        detail["detail"] = status.detail
    if status.failure is not None:
        detail |= {
            "code": status.failure.code,
            "reason": status.failure.reason,
            "log_tail": list(status.failure.log_tail[-10:]),
        }
    return detail
