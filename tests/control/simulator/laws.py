"""What must hold in a story, whenever it can be seen.

The laws look at the world as it is (`Observed`) and keep nothing but what time alone can tell: since when a step is in
the routes, and since when an alarm is on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.deployments import DEPLOYMENT_KIND, DeploymentRecord
from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointRoute
from clary.domain.statuses import is_in_progress
from clary.drivers.fake import FakeDriver
from clary.store import Resource
from control.memory_store import MemoryStore

SLOWEST_ROLLBACK_S = 5.0


class Broken(AssertionError):
    """A law was broken."""


class RoutesHeld(Protocol):
    """What each gateway knows, and where requests are under way."""

    @property
    def known(self) -> Sequence[EndpointRoute | None]: ...

    @property
    def busy(self) -> set[InstanceId]: ...

    @property
    def routed(self) -> set[InstanceId]: ...


class Observed(Protocol):
    """As much of the world as the laws look at."""

    @property
    def endpoint(self) -> Resource | None: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> MemoryStore: ...

    @property
    def driver(self) -> FakeDriver: ...

    @property
    def gateways(self) -> RoutesHeld: ...

    @property
    def alarms(self) -> Mapping[str, str]: ...

    @property
    def proven(self) -> set[InstanceId]:
        """Those that were ready at some time."""


def targets(route: EndpointRoute) -> set[InstanceId]:
    return {t.instance_id for r in (*route.variants, *route.shadows) for t in r.targets}


@dataclass(frozen=True, slots=True)
class _Exposure:
    """How much of a new fleet the routes show, of which step, and since when."""

    seen: float
    step: Mapping[str, int]
    at: datetime


class Laws:
    """What must hold, whenever it can be seen."""

    def __init__(self, world: Observed) -> None:
        self._world = world
        self._exposure: dict[str, _Exposure] = {}
        self._alarmed_since: datetime | None = None

    def check(self, holds: bool, law: str) -> None:
        if not holds:
            raise Broken(law)

    def stops(self, ids: Sequence[InstanceId]) -> None:
        """What is stopped is in no gateway's route and has no request under way."""
        gateways, now = self._world.gateways, self._world.clock.now()
        self.check(not gateways.routed & set(ids), "stopped while still routed")
        for id_ in gateways.busy & set(ids):
            _, row = self._world.store.tables.rows[id_]
            waited = timedelta(0) if row.gone_at is None else now - row.gone_at
            self.check(waited >= timedelta(seconds=60), "stopped in the middle of a request")

    def route_changes(self, old: EndpointRoute | None, new: EndpointRoute) -> None:
        self._shares_sum_to_one(new)
        self._targets_were_ready(new)
        self._capacity_stays(old, new)
        self._exposure_is_as_written(new)

    def written(self, before: Resource | None, after: Resource) -> None:
        """After a commit."""
        if after.status != "InService" or (before is not None and before.status == "InService"):
            return
        state = after.state_as(EndpointState)
        known = self._world.gateways.known
        self.check(
            state.is_route_acked and all(r == state.route for r in known), "in service before it is routed"
        )
        assert state.fleet is not None and state.route is not None
        self.check({r.fleet for r in state.route.variants} == {state.fleet.id}, "in service with two fleets")
        if before is not None and before.status in ("Creating", "Updating"):
            ready = {s.instance_id for s in self._world.driver.list() if s.phase == "ready"}
            rows = [row for _, row in self._world.store.tables.rows.values() if row.id in ready]
            places = {row.slot.place for row in rows if row.is_wanted and row.slot.fleet == state.fleet.id}
            names = {v.name: v.count for v in state.fleet.variants}
            whole = sum(1 for _, name, _ in places if name in names) == sum(names.values())
            self.check(whole, "in service before it is whole")
        weights = {v.name: v.weight for v in state.fleet.variants}
        self.check({r.name: r.weight for r in state.route.variants} == weights, "weights not in force")

    def time_passes(self, *, excused: bool) -> None:
        """An alarm that goes off during an update is acted on within seconds, unless control cannot (`excused`)."""
        world = self._world
        endpoint = world.endpoint
        is_watched = endpoint is not None and endpoint.status == "Updating"
        if is_watched and endpoint is not None:
            spec = endpoint.spec_as(EndpointSpec)
            names = spec.policy.alarms if spec.deployment_id else ()
            is_watched = any(world.alarms.get(name) == "ALARM" for name in names)
        if not is_watched or excused:
            self._alarmed_since = None
            return
        since = self._alarmed_since = self._alarmed_since or world.clock.now()
        late = world.clock.now() - since > timedelta(seconds=SLOWEST_ROLLBACK_S)
        self.check(not late, "an alarm was not acted on")

    def at_rest(self) -> None:
        """At the end: one fleet, all of it routed, nothing else anywhere, and every deployment has a verdict."""
        world, endpoint = self._world, self._world.endpoint
        held = {s.instance_id for s in world.driver.list()}
        if endpoint is None or endpoint.status == "Failed":
            self.check(not held and not world.gateways.routed, "something is left behind")
        else:
            self.check(not is_in_progress(endpoint.status), f"it stays {endpoint.status}")
            state = endpoint.state_as(EndpointState)
            assert state.fleet is not None
            fleets = {row.slot.fleet for _, row in world.store.tables.rows.values()}
            is_mixed = endpoint.status == "UpdateRollbackFailed"
            self.check(is_mixed or fleets == {state.fleet.id}, "two fleets live on")
            if not is_mixed:
                self.check(held == world.gateways.routed, "not everything is routed")
                fleet = state.fleet
                count = sum(v.count for v in (*fleet.variants, *fleet.shadows))
                self.check(len(held) == count, "the fleet is not whole")
        for resource in world.store.tables.resources.values():
            if resource.kind == DEPLOYMENT_KIND:
                record = resource.state_as(DeploymentRecord)
                is_over = resource.status == record.verdict != "in-progress" and record.ended_at is not None
                self.check(is_over and bool(record.steps), "a deployment without a verdict")

    def _shares_sum_to_one(self, route: EndpointRoute) -> None:
        sums: dict[str, float] = {}
        for variant_route in route.variants:
            self.check(variant_route.share > 0.0, "a share of nothing")
            sums[variant_route.name] = sums.get(variant_route.name, 0.0) + variant_route.share
        self.check(all(abs(total - 1.0) < 1e-9 for total in sums.values()), "shares do not sum to one")

    def _targets_were_ready(self, route: EndpointRoute) -> None:
        rows = self._world.store.tables.rows
        for id_ in targets(route):
            self.check(id_ in self._world.proven, "routed before it was ready")
            self.check(id_ in rows and rows[id_][1].is_wanted, "a retired instance is routed")

    def _capacity_stays(self, old: EndpointRoute | None, new: EndpointRoute) -> None:
        """A new route has no less ready capacity than the old one, or as much as both fleets are promised."""
        endpoint = self._world.endpoint
        assert endpoint is not None
        state, wanted = endpoint.state_as(EndpointState), endpoint.spec_as(EndpointSpec).fleet
        if old is None or state.fleet is None:
            return
        # Where a rollback failed, what is left of the other fleet serves as well, with the share that it had come to.
        promising = (state.fleet, wanted, *((state.leftover.fleet,) if state.leftover else ()))
        ready = {s.instance_id for s in self._world.driver.list() if s.phase == "ready"}
        missing: dict[str, int] = {}
        for _, row in self._world.store.tables.rows.values():
            if row.is_wanted and row.id not in ready:
                missing[row.slot.variant] = missing.get(row.slot.variant, 0) + 1
        for name in {r.name for r in old.variants}:
            before, then = (
                len({t.instance_id for r in route.variants if r.name == name for t in r.targets} & ready)
                for route in (old, new)
            )
            counts = [v.count if (v := fleet.variant(name)) else 0 for fleet in promising]
            promised = min(counts) - missing.get(name, 0)
            self.check(then >= min(before, promised), "ready capacity was taken away")

    def _exposure_is_as_written(self, route: EndpointRoute) -> None:
        """The new fleet has the traffic that is written down, after the bakes that were asked for."""
        endpoint = self._world.endpoint
        assert endpoint is not None
        spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
        if state.fleet is None or spec.fleet.id == state.fleet.id:
            return
        activated = state.deployment.activated if state.deployment else {}
        seen = 0.0
        for r in route.variants:
            theirs = spec.fleet.variant(r.name)
            if r.fleet != spec.fleet.id or theirs is None:
                continue
            allowed = activated.get(r.name, 0)
            self.check(len(r.targets) <= allowed, "more instances than are written down take traffic")
            is_shared = any(o.name == r.name and o.fleet != r.fleet for o in route.variants)
            if is_shared:
                self.check(r.share <= allowed / theirs.count + 1e-9, "more traffic than is written down")
            seen += allowed
        is_first = 0 < sum(activated.values()) < sum(v.count for v in spec.fleet.variants)
        if endpoint.status == "Updating" and spec.policy.strategy == "CANARY" and is_first:
            step = spec.policy.step
            assert step is not None
            self.check(
                all(activated.get(v.name, 0) <= step.of(v.count) for v in spec.fleet.variants),
                "a canary that is too large",
            )
        self._bakes_are_kept(spec, activated, seen)

    def _bakes_are_kept(self, spec: EndpointSpec, step: Mapping[str, int], seen: float) -> None:
        """A step may show in the routes bit by bit: what the old fleet serves meanwhile follows when that dies."""
        now = self._world.clock.now()
        last = self._exposure.get(spec.fleet.id)
        if seen <= (0.0 if last is None else last.seen):
            return
        if last is not None and last.step != step:
            self.check(now - last.at >= timedelta(seconds=spec.policy.wait_s), "a bake was cut short")
        at = last.at if last is not None and last.step == step else now
        self._exposure[spec.fleet.id] = _Exposure(seen, dict(step), at)
