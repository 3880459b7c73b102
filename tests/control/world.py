"""What `domain.rollout` sees, and what carrying its plans out makes of it, with everything outside in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from clary.domain.deployments import AT_ONCE, CapacitySize, DeploymentPolicy, Strategy
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Variant
from clary.domain.instances import LIVE_PHASES, Failure, InstanceId, InstanceStatus, Phase
from clary.domain.places import LONGEST_DELAY_S, InstanceRow
from clary.domain.plans import Plan, Seen, after
from clary.domain.rollout import decide
from clary.domain.traffic import Traffic

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def variant(name: str = "v", count: int = 1, weight: float = 1.0, accelerators: int = 0) -> Variant:
    return Variant(name, "m", "image", "ml.m5.large", 2, 8 << 30, accelerators, weight, count)


def fleet(id_: str = "f", *variants: Variant, shadows: tuple[Variant, ...] = ()) -> Fleet:
    return Fleet(id_, f"config-{id_}", variants or (variant(),), shadows)


def policy(
    strategy: Strategy = "ALL_AT_ONCE",
    step: int | str = "",
    *,
    wait_s: float = 0.0,
    alarms: tuple[str, ...] = (),
    rollback_step: CapacitySize | None = None,
    termination_wait_s: float = 0.0,
    maximum_execution_s: float | None = None,
) -> DeploymentPolicy:
    """`step` is a number of instances, or `25%`."""
    size = None
    if step:
        is_percent = isinstance(step, str)
        value = int(str(step).removesuffix("%"))
        size = CapacitySize("CAPACITY_PERCENT" if is_percent else "INSTANCE_COUNT", value)
    return DeploymentPolicy(
        strategy, size, wait_s, termination_wait_s, maximum_execution_s, rollback_step, alarms
    )


@dataclass
class World:
    wanted: Fleet
    status: str = "Creating"
    state: EndpointState = field(default_factory=EndpointState)
    policy: DeploymentPolicy = AT_ONCE
    rows: dict[InstanceId, InstanceRow] = field(default_factory=dict)
    phases: dict[InstanceId, Phase] = field(default_factory=dict)
    ready_since: dict[InstanceId, datetime] = field(default_factory=dict)
    alarms: dict[str, str] = field(default_factory=dict)
    traffic: Traffic | None = None
    now: datetime = NOW
    asked_at: datetime = NOW
    is_gone: bool = False
    accelerators: int = 0
    steps: list[str] = field(default_factory=list)
    most_rows: int = 0

    def seen(self) -> Seen:
        statuses = {
            id_: InstanceStatus(
                id_,
                phase,
                address=f"unix:/{id_}" if phase == "ready" else "",
                failure=Failure("Exited", "It ended.") if phase == "exited" else None,
                ready_at=self.ready_since[id_].timestamp() if id_ in self.ready_since else None,
            )
            for id_, phase in self.phases.items()
        }
        spec = EndpointSpec(self.wanted, self.asked_at, policy=self.policy)
        return Seen(
            "e",
            self.status,
            spec,
            self.state,
            tuple(self.rows.values()),
            statuses,
            self.now,
            self.accelerators,
            self.alarms,
        )

    def update(self, wanted: Fleet, policy: DeploymentPolicy = AT_ONCE) -> None:
        self.status, self.wanted, self.policy, self.asked_at = "Updating", wanted, policy, self.now
        self.state = replace(self.state, problem=None)

    def step(self) -> Plan:
        seen = self.seen()
        plan = decide(seen)
        if not plan.keeps_route:
            self.traffic = plan.traffic
        for new in plan.create:
            id_ = InstanceId("/".join(map(str, (*new.slot.place, new.slot.incarnation))))
            assert id_ not in self.rows, "an incarnation is made once"
            start_at = self.now + timedelta(seconds=new.delay_s)
            self.rows[id_] = InstanceRow(id_, new.slot, True, False, "missing", new.failures, start_at)
        for id_ in plan.retire:
            assert id_ not in self.routed, "what is retired is out of the route"
            self.rows[id_] = replace(self.rows[id_], is_wanted=False)
        for id_, row in self.rows.items():
            self.rows[id_] = replace(row, phase=self.phases.get(id_, "missing"))
        self.status, spec, self.state = after(seen, plan, self.now)
        self.wanted = spec.fleet
        self.steps += [note.step for note in plan.notes]
        if plan.outcome == "gone":
            assert not self.rows, "nothing is left behind"
            self.is_gone = True
        self._carry_out()
        self.most_rows = max(self.most_rows, len(self.rows))
        return plan

    def _carry_out(self) -> None:
        for row in list(self.rows.values()):
            phase = self.phases.get(row.id, "missing")
            if row.is_wanted and not row.is_started and row.start_at <= self.now:
                self.rows[row.id] = replace(row, is_started=True)
                self.phases[row.id] = "starting"
            elif not row.is_wanted and phase in LIVE_PHASES:
                assert row.id not in self.routed
                self.phases[row.id] = "exited"
            elif not row.is_wanted:
                del self.rows[row.id]
                self.phases.pop(row.id, None)

    def bring_up(self, prefix: str = "") -> None:
        for id_, phase in self.phases.items():
            if phase == "starting" and id_.startswith(prefix):
                self.phases[id_] = "ready"
                self.ready_since[id_] = self.now

    def settle(self) -> None:
        """Steps as long as something can follow at once; instances come up meanwhile. No time passes."""
        for _ in range(60):
            self.bring_up()
            plan = self.step()
            is_still = all(row.is_wanted and row.is_started for row in self.rows.values())
            if is_still and "starting" not in self.phases.values() and self._waits(plan):
                return

    def _waits(self, plan: Plan) -> bool:
        return plan.outcome == "continue" and plan.again_after_s != 0.0 and not plan.create

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def routed(self) -> set[InstanceId]:
        routes = () if self.traffic is None else (*self.traffic.variants, *self.traffic.shadows)
        return {target.instance_id for route in routes for target in route.targets}

    @property
    def shares(self) -> dict[str, float]:
        """Fleet → its part of the whole traffic."""
        found: dict[str, float] = {}
        for route in () if self.traffic is None else self.traffic.variants:
            found[route.fleet] = found.get(route.fleet, 0.0) + route.weight * route.share
        total = sum(found.values())
        return {id_: round(part / total, 6) for id_, part in found.items()} if total else {}

    def serving(self) -> Mapping[str, int]:
        """Fleet → how many of its instances are routed."""
        found: dict[str, int] = {}
        for id_ in self.routed:
            found[id_.partition("/")[0]] = found.get(id_.partition("/")[0], 0) + 1
        return found

    def ready(self) -> set[InstanceId]:
        return {id_ for id_, phase in self.phases.items() if phase == "ready" and self.rows[id_].is_wanted}

    def calm(self, steps: int = 12) -> None:
        """Nothing fails any more: everything comes up, time passes."""
        for _ in range(steps):
            self.step()
            self.bring_up()
            self.now += timedelta(seconds=LONGEST_DELAY_S)


def in_service(*variants: Variant, shadows: tuple[Variant, ...] = ()) -> World:
    world = World(fleet("f", *variants, shadows=shadows))
    world.calm(4)
    assert world.status == "InService"
    return world
