"""What users do to the endpoint: create it, update it with every strategy, give it other numbers, delete it."""

from dataclasses import replace

from clary.domain.deployments import (
    AT_ONCE,
    DEPLOYMENT_KIND,
    CapacitySize,
    DeploymentPolicy,
    DeploymentRecord,
    DeploymentRequest,
    Strategy,
)
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet
from clary.domain.statuses import is_in_progress, is_updatable
from clary.store import Resource
from control.simulator.world import UID, Behaviour, World
from control.world import variant

STRATEGIES: tuple[Strategy, ...] = ("ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING", "ROLLING")
BEHAVIOURS: tuple[Behaviour, ...] = ("good", "good", "cannot start", "hangs", "crashes", "errs")
SIZES = (CapacitySize("INSTANCE_COUNT", 1), CapacitySize("CAPACITY_PERCENT", 50))


class Users:
    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        self._fleets = 0

    def create(self) -> None:
        world = self._world
        fleet = self._fleet()
        if self._dice.random() < 0.9:
            world.behaviours[fleet.id] = "good"
        spec = EndpointSpec(fleet, world.clock.now(), deployment_id=fleet.id)
        with world.store.write() as tx:
            tx.resources.insert(UID, "endpoint", "e", "Creating", spec, EndpointState())
        if self._dice.random() < 0.8:
            world.make_alarms()
        self._open_record(fleet, spec.policy)

    def ask(self) -> bool:
        """Whether something was asked for: not while what was asked before is under way."""
        endpoint = self._world.endpoint
        if endpoint is None:
            self.create()
            return True
        if is_in_progress(endpoint.status):
            return False
        if not is_updatable(endpoint.status) or self._dice.random() < 0.06:
            with self._world.store.write() as tx:
                tx.resources.update(endpoint, status="Deleting")
            self._world.note("delete")
        elif self._dice.random() < 0.3:
            self._ask_for_numbers(endpoint)
        else:
            self._ask_for_update(endpoint)
        return True

    def _ask_for_numbers(self, endpoint: Resource) -> None:
        live = endpoint.state_as(EndpointState).fleet
        assert live is not None
        variants = tuple(
            replace(v, count=self._dice.randint(1, 4), weight=float(self._dice.randint(0, 3)))
            for v in live.variants
        )
        self._update(endpoint, EndpointSpec(replace(live, variants=variants), self._world.clock.now()))

    def _ask_for_update(self, endpoint: Resource) -> None:
        fleet = self._fleet()
        policy = self._policy()
        if not set(policy.alarms) <= self._world.alarms.keys():
            policy = AT_ONCE  # refused by the API
        spec = EndpointSpec(fleet, self._world.clock.now(), deployment_id=fleet.id, policy=policy)
        self._update(endpoint, spec)
        self._open_record(fleet, policy)

    def _update(self, endpoint: Resource, spec: EndpointSpec) -> None:
        behaviour = self._world.behaviours.get(spec.fleet.id)
        self._world.note(f"ask {spec.fleet.id} {spec.policy.strategy} {behaviour}")
        state = replace(endpoint.state_as(EndpointState), problem=None, outlook="unknown")
        with self._world.store.write() as tx:
            tx.resources.update(endpoint, status="Updating", spec=spec, state=state)

    def _open_record(self, fleet: Fleet, policy: DeploymentPolicy) -> None:
        now = self._world.clock.now()
        request = DeploymentRequest(
            fleet.id, "e", "UpdateEndpoint", "", "", fleet.config_name, (), policy, now
        )
        with self._world.store.write() as tx:
            name = f"e/{fleet.id}"
            tx.resources.insert(fleet.id, DEPLOYMENT_KIND, name, "in-progress", request, DeploymentRecord())

    def _fleet(self) -> Fleet:
        self._fleets += 1
        id_ = f"f{self._fleets}"
        dice = self._dice
        names = dice.sample("abc", dice.choice((1, 1, 2)))
        variants = tuple(variant(n, dice.randint(1, 4), float(dice.choice((0, 1, 1, 2)))) for n in names)
        shadows = (variant("s", dice.randint(1, 2), 0.5),) if dice.random() < 0.2 else ()
        self._world.behaviours[id_] = dice.choice(BEHAVIOURS)
        return Fleet(id_, f"config-{id_}", variants, shadows)

    def _policy(self) -> DeploymentPolicy:
        dice = self._dice
        is_restored_slowly = dice.random() < 0.5
        return DeploymentPolicy(
            dice.choice(STRATEGIES),
            dice.choice(SIZES),
            wait_s=dice.choice((0.0, 2.0, 20.0)),
            termination_wait_s=dice.choice((0.0, 0.0, 10.0)),
            maximum_execution_s=dice.choice((None, 120.0)),
            rollback_step=CapacitySize("INSTANCE_COUNT", 1) if is_restored_slowly else None,
            alarms=dice.choice(((), ("errors",), ("errors", "latency"))),
        )
