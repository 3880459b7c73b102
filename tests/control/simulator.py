"""The endpoint reconciler in virtual time: random stories, faults at every call, and what must hold all the while.

    python -m control.simulator 100000 --jobs 4     # in the folder `tests`

One story: an endpoint is created, updated with every strategy, given other numbers and deleted, while instances come
up or die, versions are good or bad, alarms come and go, and every call out of the reconciler may fail before it did
anything, or end the process after it did. Then everything is calm, and it has to converge. What is checked is in
`Laws`. `without` takes one guarantee of the reconciler away: then the laws must be seen broken.
"""

import argparse
import functools
import logging
import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from unittest.mock import patch

from clary.domain import rollout, shifting, updating, watching
from clary.domain.alarms import ALARM_KIND, AlarmState
from clary.domain.deployments import (
    AT_ONCE,
    DEPLOYMENT_KIND,
    CapacitySize,
    Deployment,
    DeploymentPolicy,
    DeploymentRecord,
    DeploymentRequest,
    Strategy,
)
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet
from clary.domain.instances import Failure, InstanceId, InstanceSpec
from clary.domain.plans import Note, Seen
from clary.domain.plans import Plan as PlanOf
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.domain.statuses import is_in_progress, is_updatable
from clary.domain.traffic import Layer, traffic
from clary.drivers.base import DriverError
from clary.drivers.fake import FakeDriver, Plan
from clary.reconcilers.endpoint import EndpointReconciler
from clary.store import Lease, Resource
from clary.testing.clock import FakeClock
from control.memory_store import MemoryStore
from control.world import variant

UID = "endpoint"
STEPS = 45
CALM_STEPS = 500
STARTUP_S = 240.0
SLOWEST_ROLLBACK_S = 5.0

Behaviour = Literal["good", "cannot start", "hangs", "crashes", "errs"]
Guarantee = Literal[
    "acknowledged routes", "drained", "proven ready", "bakes", "alarms", "routes first", "written first"
]
GUARANTEES: tuple[Guarantee, ...] = get_args(Guarantee)


class Broken(AssertionError):
    """A law was broken."""


class _Killed(Exception):
    """Control is gone in the middle of its work."""


@dataclass(frozen=True, slots=True)
class Report:
    """`broken` says which law was, or nothing; `statuses` counts how the story's deployments ended."""

    seed: int
    broken: str = ""
    verdicts: tuple[str, ...] = ()
    reconciled: int = 0
    trace: tuple[str, ...] = ()


def run(seed: int, *, without: Guarantee | None = None, faults: float = 0.03) -> Report:
    """One story. The same seed tells the same one."""
    story = Story(seed, faults, without)
    broken = ""
    with _without(without):
        try:
            story.tell()
        except Broken as error:
            broken = str(error)
    return Report(seed, broken, tuple(story.verdicts), story.reconciled, tuple(story.trace))


class Gateways:
    """Two of them. What each knows, and where requests are under way."""

    def __init__(self, laws: "Laws", chance: Callable[[float], bool], *, acknowledge: bool) -> None:
        self.known: list[EndpointRoute | None] = [None, None]
        self.busy: set[InstanceId] = set()
        self._late: EndpointRoute | None = None
        self._laws = laws
        self._chance = chance
        self._acknowledges = acknowledge

    def publish(self, route: EndpointRoute) -> None:
        for number, held in enumerate(self.known):
            if held is not None:
                self._laws.check(route.generation >= held.generation, "a route went backwards")
                is_same = route.generation > held.generation or route == held
                self._laws.check(is_same, "a generation means two routes")
            if self._acknowledges or number == 0:
                self._apply(number, route)
            if number == 0 and self._chance(0.5):
                raise RuntimeError("the second gateway did not apply the route")

    def withdraw(self, *keys: EndpointKey) -> None:
        self.known = [None, None]

    def drain(self, ids: Sequence[InstanceId], timeout_s: float) -> set[InstanceId]:
        self._laws.check(not self.routed & set(ids), "drained while still routed")
        return self.busy & set(ids)

    @property
    def routed(self) -> set[InstanceId]:
        return {id_ for route in self.known if route is not None for id_ in targets(route)}

    def _apply(self, number: int, route: EndpointRoute) -> None:
        if self.known[number] != route:
            self._laws.route_changes(self.known[number], route)
            self.known[number] = route


def targets(route: EndpointRoute) -> set[InstanceId]:
    return {t.instance_id for r in (*route.variants, *route.shadows) for t in r.targets}


class GuardedDriver(FakeDriver):
    """Holds the reconciler to what it owes instances that serve."""

    def __init__(self, laws: "Laws", now: Callable[[], float]) -> None:
        super().__init__(auto=False, now=now)
        self._laws = laws
        self._removed: set[InstanceId] = set()

    def start(self, spec: InstanceSpec) -> Any:
        self._laws.check(spec.instance_id not in self._removed, "an instance came twice")
        return super().start(spec)

    def stop(self, ids: Any, grace_s: float) -> None:
        chosen = list(ids)
        self._laws.stops(chosen)
        super().stop(chosen, grace_s)

    def remove(self, ids: Any) -> None:
        chosen = list(ids)
        held = {status.instance_id: status for status in super().list()}
        self._laws.stops([id_ for id_ in chosen if id_ in held and held[id_].is_live])
        self._removed |= set(chosen)
        super().remove(chosen)


@dataclass(frozen=True, slots=True)
class _Exposure:
    """How much of a new fleet the routes show, of which step, and since when."""

    seen: float
    step: Mapping[str, int]
    at: datetime


class Laws:
    """What must hold, whenever it can be seen."""

    def __init__(self, story: "Story") -> None:
        self._story = story
        self._exposure: dict[str, _Exposure] = {}
        self._alarmed_since: datetime | None = None

    def check(self, holds: bool, law: str) -> None:
        if not holds:
            raise Broken(law)

    def stops(self, ids: Sequence[InstanceId]) -> None:
        """What is stopped is in no gateway's route and has no request under way."""
        gateways, now = self._story.gateways, self._story.clock.now()
        self.check(not gateways.routed & set(ids), "stopped while still routed")
        for id_ in gateways.busy & set(ids):
            _, row = self._story.store.tables.rows[id_]
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
        known = self._story.gateways.known
        self.check(
            state.is_route_acked and all(r == state.route for r in known), "in service before it is routed"
        )
        assert state.fleet is not None and state.route is not None
        self.check({r.fleet for r in state.route.variants} == {state.fleet.id}, "in service with two fleets")
        if before is not None and before.status in ("Creating", "Updating"):
            ready = {s.instance_id for s in self._story.driver.list() if s.phase == "ready"}
            rows = [row for _, row in self._story.store.tables.rows.values() if row.id in ready]
            places = {row.slot.place for row in rows if row.is_wanted and row.slot.fleet == state.fleet.id}
            names = {v.name: v.count for v in state.fleet.variants}
            whole = sum(1 for _, name, _ in places if name in names) == sum(names.values())
            self.check(whole, "in service before it is whole")
        weights = {v.name: v.weight for v in state.fleet.variants}
        self.check({r.name: r.weight for r in state.route.variants} == weights, "weights not in force")

    def time_passes(self) -> None:
        """An alarm that goes off during an update is acted on within seconds, unless control cannot."""
        story = self._story
        endpoint = story.endpoint
        is_watched = endpoint is not None and endpoint.status == "Updating"
        if is_watched and endpoint is not None:
            spec = endpoint.spec_as(EndpointSpec)
            names = spec.policy.alarms if spec.deployment_id else ()
            is_watched = any(story.alarms.get(name) == "ALARM" for name in names)
        if not is_watched or story.has_failed:
            self._alarmed_since = None
            return
        since = self._alarmed_since = self._alarmed_since or story.clock.now()
        late = story.clock.now() - since > timedelta(seconds=SLOWEST_ROLLBACK_S)
        self.check(not late, "an alarm was not acted on")

    def at_rest(self) -> None:
        """At the end: one fleet, all of it routed, nothing else anywhere, and every deployment has a verdict."""
        story, endpoint = self._story, self._story.endpoint
        held = {s.instance_id for s in story.driver.list()}
        if endpoint is None or endpoint.status == "Failed":
            self.check(not held and not story.gateways.routed, "something is left behind")
        else:
            self.check(not is_in_progress(endpoint.status), f"it stays {endpoint.status}")
            state = endpoint.state_as(EndpointState)
            assert state.fleet is not None
            fleets = {row.slot.fleet for _, row in story.store.tables.rows.values()}
            is_mixed = endpoint.status == "UpdateRollbackFailed"
            self.check(is_mixed or fleets == {state.fleet.id}, "two fleets live on")
            if not is_mixed:
                self.check(held == story.gateways.routed, "not everything is routed")
                fleet = state.fleet
                count = sum(v.count for v in (*fleet.variants, *fleet.shadows))
                self.check(len(held) == count, "the fleet is not whole")
        for resource in story.store.tables.resources.values():
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
        rows = self._story.store.tables.rows
        for id_ in targets(route):
            self.check(id_ in self._story.proven, "routed before it was ready")
            self.check(id_ in rows and rows[id_][1].is_wanted, "a retired instance is routed")

    def _capacity_stays(self, old: EndpointRoute | None, new: EndpointRoute) -> None:
        """A new route has no less ready capacity than the old one, or as much as both fleets are promised."""
        endpoint = self._story.endpoint
        assert endpoint is not None
        state, wanted = endpoint.state_as(EndpointState), endpoint.spec_as(EndpointSpec).fleet
        if old is None or state.fleet is None:
            return
        # Where a rollback failed, what is left of the other fleet serves as well, with the share that it had come to.
        promising = (state.fleet, wanted, *((state.leftover.fleet,) if state.leftover else ()))
        ready = {s.instance_id for s in self._story.driver.list() if s.phase == "ready"}
        missing: dict[str, int] = {}
        for _, row in self._story.store.tables.rows.values():
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
        endpoint = self._story.endpoint
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
        now = self._story.clock.now()
        last = self._exposure.get(spec.fleet.id)
        if seen <= (0.0 if last is None else last.seen):
            return
        if last is not None and last.step != step:
            self.check(now - last.at >= timedelta(seconds=spec.policy.wait_s), "a bake was cut short")
        at = last.at if last is not None and last.step == step else now
        self._exposure[spec.fleet.id] = _Exposure(seen, dict(step), at)


class Story:
    def __init__(self, seed: int, faults: float, without: Guarantee | None) -> None:
        self.dice = random.Random(seed)
        self.faults = faults
        self.has_failed = False
        self.clock = FakeClock()
        self.laws = Laws(self)
        self.store = MemoryStore(self.clock)
        self.driver = GuardedDriver(self.laws, lambda: self.clock.now().timestamp())
        self.driver.plan(self._plan)
        self.gateways = Gateways(
            self.laws,
            lambda factor: self._chance(self.faults * factor),
            acknowledge=without != "acknowledged routes",
        )
        self.behaviours: dict[str, Behaviour] = {}
        self.alarms: dict[str, str] = {}
        self.proven: set[InstanceId] = set()
        self.verdicts: list[str] = []
        self.reconciled = 0
        self.trace: list[str] = []
        self._is_calm = False
        self._due: datetime | None = None
        self._fleets = 0
        self._attempts = 0
        kind = _RoutesLast if without == "routes first" else EndpointReconciler
        self._reconciler = kind(
            _FaultyStore(self),  # type: ignore[arg-type]
            _Faulty(self, self.driver, {"start", "inspect", "stop", "remove"}, DriverError),
            _Faulty(self, self.gateways, {"publish", "withdraw", "drain"}, RuntimeError),
            self.clock,
            zones=3,
            tell=lambda endpoint, verdict: self.verdicts.append(verdict),
        )

    @property
    def endpoint(self) -> Resource | None:
        return self.store.tables.resources.get(UID)

    def tell(self) -> None:
        self._create()
        for _ in range(STEPS):
            self._something_happens()
            self._reconcile_due()
            self._time_passes(self.dice.choice((0.0, 0.3, 1.0, 1.0, 4.0, 15.0)))
        self._calm_down()
        self.laws.at_rest()

    def _something_happens(self) -> None:
        match self.dice.randrange(8):
            case 0 | 1 | 2:
                self._instances_move()
            case 3:
                self._one_dies()
            case 4:
                self._an_alarm_changes()
            case 5 | 6:
                self._somebody_asks()
            case _:
                self._requests_come_and_go()

    def _calm_down(self) -> None:
        """Nothing fails any more and every version is good: how long may it take?"""
        self._is_calm, self.faults = True, 0.0
        self.note("calm")
        self.behaviours = dict.fromkeys(self.behaviours, "good")
        self.driver.plan(lambda spec: Plan())
        for status in self.driver.list():  # those that would never have come up, or are half ended
            if status.phase in ("starting", "fetching", "preparing"):
                self.driver.end(status.instance_id, Failure("PingTimeout", "It never answered."))
        self.gateways.busy.clear()
        for _ in range(CALM_STEPS):
            self._set_alarm("OK")
            self.driver.step()
            self._see_ready()
            self._wish()
            if self._reconcile_due() is None and self._is_still():
                return
            self._time_passes(5.0)
        raise Broken("it does not converge")

    def _is_still(self) -> bool:
        phases = {status.phase for status in self.driver.list()}
        endpoint = self.endpoint
        return phases <= {"ready"} and (endpoint is None or not is_in_progress(endpoint.status))

    # What users do

    def _create(self) -> None:
        fleet = self._fleet()
        if self.dice.random() < 0.9:
            self.behaviours[fleet.id] = "good"
        spec = EndpointSpec(fleet, self.clock.now(), deployment_id=fleet.id)
        with self.store.write() as tx:
            tx.resources.insert(UID, "endpoint", "e", "Creating", spec, EndpointState())
            if self.dice.random() < 0.8:
                now = self.clock.now()
                for name in ("errors", "latency"):
                    state = AlarmState("as it was drawn", "", now, now, now)
                    tx.resources.insert(name, ALARM_KIND, name, "OK", {}, state)
                    self.alarms[name] = "OK"
        self._open_record(fleet, spec.policy)
        self._wish()

    def _somebody_asks(self) -> None:
        endpoint = self.endpoint
        if endpoint is None:
            self._create()
            return
        if is_in_progress(endpoint.status):
            return
        if not is_updatable(endpoint.status) or self.dice.random() < 0.06:
            with self.store.write() as tx:
                tx.resources.update(endpoint, status="Deleting")
            self.note("delete")
        elif self.dice.random() < 0.3:
            self._ask_for_numbers(endpoint)
        else:
            self._ask_for_update(endpoint)
        self._wish()

    def _ask_for_numbers(self, endpoint: Resource) -> None:
        live = endpoint.state_as(EndpointState).fleet
        assert live is not None
        variants = tuple(
            replace(v, count=self.dice.randint(1, 4), weight=float(self.dice.randint(0, 3)))
            for v in live.variants
        )
        self._ask(endpoint, EndpointSpec(replace(live, variants=variants), self.clock.now()))

    def _ask_for_update(self, endpoint: Resource) -> None:
        fleet = self._fleet()
        policy = self._policy()
        if not set(policy.alarms) <= self.alarms.keys():
            policy = AT_ONCE  # refused by the API
        spec = EndpointSpec(fleet, self.clock.now(), deployment_id=fleet.id, policy=policy)
        self._ask(endpoint, spec)
        self._open_record(fleet, policy)

    def _ask(self, endpoint: Resource, spec: EndpointSpec) -> None:
        self.note(f"ask {spec.fleet.id} {spec.policy.strategy} {self.behaviours.get(spec.fleet.id)}")
        state = replace(endpoint.state_as(EndpointState), problem=None, outlook="unknown")
        with self.store.write() as tx:
            tx.resources.update(endpoint, status="Updating", spec=spec, state=state)

    def _open_record(self, fleet: Fleet, policy: DeploymentPolicy) -> None:
        request = DeploymentRequest(
            fleet.id, "e", "UpdateEndpoint", "", "", fleet.config_name, (), policy, self.clock.now()
        )
        with self.store.write() as tx:
            tx.resources.insert(
                fleet.id, DEPLOYMENT_KIND, f"e/{fleet.id}", "in-progress", request, DeploymentRecord()
            )

    def _fleet(self) -> Fleet:
        self._fleets += 1
        id_ = f"f{self._fleets}"
        names = self.dice.sample("abc", self.dice.choice((1, 1, 2)))
        variants = tuple(
            variant(n, self.dice.randint(1, 4), float(self.dice.choice((0, 1, 1, 2)))) for n in names
        )
        shadows = (variant("s", self.dice.randint(1, 2), 0.5),) if self.dice.random() < 0.2 else ()
        behaviours: tuple[Behaviour, ...] = ("good", "good", "cannot start", "hangs", "crashes", "errs")
        self.behaviours[id_] = self.dice.choice(behaviours)
        return Fleet(id_, f"config-{id_}", variants, shadows)

    def _policy(self) -> DeploymentPolicy:
        strategies: tuple[Strategy, ...] = ("ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING", "ROLLING")
        sizes = (CapacitySize("INSTANCE_COUNT", 1), CapacitySize("CAPACITY_PERCENT", 50))
        is_restored_slowly = self.dice.random() < 0.5
        return DeploymentPolicy(
            self.dice.choice(strategies),
            self.dice.choice(sizes),
            wait_s=self.dice.choice((0.0, 2.0, 20.0)),
            termination_wait_s=self.dice.choice((0.0, 0.0, 10.0)),
            maximum_execution_s=self.dice.choice((None, 120.0)),
            rollback_step=CapacitySize("INSTANCE_COUNT", 1) if is_restored_slowly else None,
            alarms=self.dice.choice(((), ("errors",), ("errors", "latency"))),
        )

    # What the world does

    def _plan(self, spec: InstanceSpec) -> Plan:
        match self.behaviours.get(spec.group, "good"):
            case "cannot start":
                return Plan(until="starting", failure=Failure("Exited", "It ended.", ("no model",), 1))
            case "hangs":
                return Plan(until="starting")
            case _:
                return Plan()

    def _instances_move(self) -> None:
        self.driver.step(lambda id_: self.dice.random() < 0.8)
        now = self.clock.now().timestamp()
        for status in self.driver.list():
            fleet = self._fleet_of(status.instance_id)
            hangs = status.phase == "starting" and now - (status.started_at or now) > STARTUP_S
            crashes = self.behaviours.get(fleet) == "crashes" and status.phase == "ready"
            if hangs or (crashes and self.dice.random() < 0.3):
                self.driver.end(status.instance_id, Failure("OutOfMemory", "It ended.", ("boom",)))
        self._see_ready()
        self._wish()

    def _one_dies(self) -> None:
        living = [s for s in self.driver.list() if s.phase == "ready"]
        if not living:
            return
        id_ = self.dice.choice(living).instance_id
        match self.dice.randrange(4):
            case 0:
                self.driver.become(id_, "unhealthy")
            case 1:
                self.driver.lose(id_)
            case _:
                self.driver.end(id_, Failure("Killed", "It was killed.", signal=9))
        self.gateways.busy.discard(id_)
        self.note(f"dies {id_}")
        self._wish()

    def _see_ready(self) -> None:
        self.proven |= {s.instance_id for s in self.driver.list() if s.phase == "ready"}

    def _an_alarm_changes(self) -> None:
        """A bad version that has traffic sets it off; now and then it goes off by itself, or is deleted."""
        routes = [r for route in self.gateways.known if route is not None for r in route.variants]
        is_bad = any(self.behaviours.get(r.fleet) == "errs" for r in routes)
        if is_bad or self.dice.random() < 0.15:
            self._set_alarm("ALARM")
        else:
            self._set_alarm(self.dice.choice(("OK", "OK", "INSUFFICIENT_DATA")))

    def _set_alarm(self, state: str) -> None:
        name = "errors"
        if name not in self.alarms:
            return
        with self.store.write() as tx:
            found = tx.resources.get(name)
            assert found is not None
            if found.status != state:
                tx.resources.update(found, status=state)
        if self.alarms[name] != state:
            self.note(f"alarm {state}")
        self.alarms[name] = state

    def _requests_come_and_go(self) -> None:
        alive = {s.instance_id for s in self.driver.list() if s.phase == "ready"}
        kept = {id_ for id_ in sorted(self.gateways.busy & alive) if self.dice.random() < 0.7}
        new = {id_ for id_ in sorted(self.gateways.routed & alive) if self.dice.random() < 0.5}
        self.gateways.busy = kept | new

    def _fleet_of(self, id_: InstanceId) -> str:
        return self.store.tables.specs[id_].group

    # The reconciler, when it is due

    def _wish(self) -> None:
        self._due = self.clock.now()

    def _reconcile_due(self) -> datetime | None:
        """Runs it as often as it is due now; when it is due next."""
        for _ in range(30):
            if self._due is None or self._due > self.clock.now():
                break
            again_s = self._reconcile()
            self._due = None if again_s is None else self.clock.now() + timedelta(seconds=again_s)
        return self._due

    def _reconcile(self) -> float | None:
        self.reconciled += 1
        try:
            again_s = self._reconciler.reconcile(Lease("endpoint", UID, "", 0, 0))
        except (_Killed, DriverError, RuntimeError) as error:
            self.note(f"interrupted: {error}")
            self.has_failed = True
            self._attempts += 1
            return min(60.0, 0.25 * 2.0 ** min(self._attempts, 4))
        self.has_failed, self._attempts = False, 0
        return again_s

    def _time_passes(self, seconds: float) -> None:
        """In pieces, so that nothing that is due is passed over."""
        until = self.clock.now() + timedelta(seconds=seconds)
        for _ in range(40):
            now = self.clock.now()
            if now >= until:
                break
            next_ = until if self._due is None else min(until, max(self._due, now + timedelta(seconds=0.05)))
            self.clock.advance((next_ - now) / timedelta(seconds=1))
            self.laws.time_passes()
            self._reconcile_due()
        self.laws.time_passes()

    def note(self, what: str) -> None:
        endpoint = self.endpoint
        status = "-" if endpoint is None else endpoint.status
        moment = (self.clock.now() - FakeClock().now()) / timedelta(seconds=1)
        self.trace.append(f"{moment:8.2f} {status:12} {what}")

    def _chance(self, probability: float) -> bool:
        return probability > 0.0 and self.dice.random() < probability

    def before_call(self, error: type[Exception]) -> None:
        if self._chance(self.faults / 2):
            raise error("it fails now")

    def after_call(self) -> None:
        if self._chance(self.faults / 2):
            raise _Killed("killed")


class _Faulty:
    def __init__(self, story: Story, thing: object, calls: set[str], error: type[Exception]) -> None:
        self._story, self._thing, self._calls, self._error = story, thing, calls, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name not in self._calls:
            return found

        def call(*args: object, **kwargs: object) -> object:
            self._story.before_call(self._error)
            result = found(*args, **kwargs)
            self._story.after_call()
            return result

        return call


class _FaultyStore:
    def __init__(self, story: Story) -> None:
        self._story = story
        self.read = story.store.read

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator[Any]:
        before = self._story.endpoint
        self._story.before_call(_Killed)
        with self._story.store.write() as tx:
            yield tx
        after = self._story.endpoint
        if after is not None and after is not before:
            if before is not None and before.status != after.status:
                self._story.note(f"was {before.status}")
            self._story.laws.written(before, after)
        self._story.after_call()


class _RoutesLast(EndpointReconciler):
    """Retires before the new route is in the gateways."""

    def _route(self, lease: Any, loaded: Any, wanted: Any) -> Any:
        if (
            wanted is not None
            and loaded.state.route is not None
            and any(not r.is_wanted for r in loaded.rows)
        ):
            return loaded
        return super()._route(lease, loaded, wanted)

    def _let_go(self, lease: Any, loaded: Any) -> Any:
        gone = [row.id for row in loaded.rows if not row.is_wanted]
        if gone:
            self._driver.stop(gone, 0.0)
        return super()._let_go(lease, loaded)


def _shift_at_once(seen: Seen, live: Fleet, plan: PlanOf, deployment: Deployment, *notes: Note) -> PlanOf:
    """Traffic moves in the step that writes it down."""
    activated = shifting.next_activation(seen.spec.policy, seen.spec.fleet, deployment.activated)
    moved = replace(deployment, stage="activating", activated=activated)
    layers = (Layer(live), Layer(seen.spec.fleet, None, activated))
    return replace(plan, deployment=moved, traffic=traffic(layers, seen.standing), again_after_s=0.0)


@contextmanager
def _without(guarantee: Guarantee | None) -> Iterator[None]:
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


@dataclass
class Summary:
    """Of many stories."""

    seeds: int = 0
    broken: dict[int, str] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    reconciled: int = 0

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.verdicts.update(report.verdicts)
        self.reconciled += report.reconciled
        if report.broken:
            self.broken[report.seed] = report.broken


def run_many(first: int, count: int, *, jobs: int = 1, without: Guarantee | None = None) -> Summary:
    """The seeds from `first` on, in so many processes."""
    summary = Summary()
    tell = functools.partial(_run_quietly, without)
    seeds = range(first, first + count)
    if jobs == 1:
        for seed in seeds:
            summary.add(tell(seed))
        return summary
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for report in pool.imap_unordered(tell, seeds, chunksize=50):
            summary.add(report)
    return summary


def _run_quietly(without: Guarantee | None, seed: int) -> Report:
    was_disabled = logging.root.manager.disable
    logging.disable()
    try:
        return run(seed, without=without)
    finally:
        logging.disable(was_disabled)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random stories of an endpoint, held to the laws.")
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--without", choices=GUARANTEES, help="take one guarantee away")
    asked = parser.parse_args()
    summary = run_many(asked.first, asked.count, jobs=asked.jobs, without=asked.without)
    for seed, law in sorted(summary.broken.items()):
        print(f"seed {seed}: {law}")
    print(
        f"{summary.seeds} stories from seed {asked.first}: {len(summary.broken)} broken; "
        f"{summary.reconciled} reconciliations; deployments: {dict(summary.verdicts)}"
    )
    return 1 if summary.broken else 0


if __name__ == "__main__":
    sys.exit(main())
