"""The world round the reconciler in virtual time: instances that come up and die, alarms, requests under way.

Everything that happens here is drawn from the dice of the story.
"""

import random
from datetime import timedelta
from typing import Literal

from clary.domain.alarms import ALARM_KIND, AlarmState
from clary.domain.instances import Failure, InstanceId, InstanceSpec
from clary.drivers.fake import Plan
from clary.store import Resource
from clary.testing.clock import FakeClock
from control.memory_store import MemoryStore
from control.simulator.faults import Faults
from control.simulator.laws import Laws
from control.simulator.outside import Gateways, GuardedDriver

UID = "endpoint"
STARTUP_S = 240.0

Behaviour = Literal["good", "cannot start", "hangs", "crashes", "errs"]


class World:
    """`behaviours` says by fleet what its version does; `proven` are the instances that were ready at some time."""

    def __init__(self, dice: random.Random, faults: Faults, *, acknowledge: bool) -> None:
        self.dice = dice
        self.faults = faults
        self.clock = FakeClock()
        self.laws = Laws(self)
        self.store = MemoryStore(self.clock)
        self.driver = GuardedDriver(self.laws, lambda: self.clock.now().timestamp())
        self.driver.plan(self._plan)
        self.gateways = Gateways(self.laws, faults, acknowledge=acknowledge)
        self.behaviours: dict[str, Behaviour] = {}
        self.alarms: dict[str, str] = {}
        self.proven: set[InstanceId] = set()
        self.trace: list[str] = []

    @property
    def endpoint(self) -> Resource | None:
        return self.store.tables.resources.get(UID)

    def note(self, what: str) -> None:
        endpoint = self.endpoint
        status = "-" if endpoint is None else endpoint.status
        moment = (self.clock.now() - FakeClock().now()) / timedelta(seconds=1)
        self.trace.append(f"{moment:8.2f} {status:12} {what}")

    def instances_move(self) -> None:
        self.driver.step(lambda id_: self.dice.random() < 0.8)
        now = self.clock.now().timestamp()
        for status in self.driver.list():
            fleet = self._fleet_of(status.instance_id)
            hangs = status.phase == "starting" and now - (status.started_at or now) > STARTUP_S
            crashes = self.behaviours.get(fleet) == "crashes" and status.phase == "ready"
            if hangs or (crashes and self.dice.random() < 0.3):
                self.driver.end(status.instance_id, Failure("OutOfMemory", "It ended.", ("boom",)))
        self._see_ready()

    def one_dies(self) -> bool:
        """Whether there was one that could."""
        living = [s for s in self.driver.list() if s.phase == "ready"]
        if not living:
            return False
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
        return True

    def requests_come_and_go(self) -> None:
        alive = {s.instance_id for s in self.driver.list() if s.phase == "ready"}
        kept = {id_ for id_ in sorted(self.gateways.busy & alive) if self.dice.random() < 0.7}
        new = {id_ for id_ in sorted(self.gateways.routed & alive) if self.dice.random() < 0.5}
        self.gateways.busy = kept | new

    def make_alarms(self) -> None:
        now = self.clock.now()
        with self.store.write() as tx:
            for name in ("errors", "latency"):
                state = AlarmState("as it was drawn", "", now, now, now)
                tx.resources.insert(name, ALARM_KIND, name, "OK", {}, state)
                self.alarms[name] = "OK"

    def an_alarm_changes(self) -> None:
        """A bad version that has traffic sets it off; now and then it goes off by itself, or is deleted."""
        routes = [r for route in self.gateways.known if route is not None for r in route.variants]
        is_bad = any(self.behaviours.get(r.fleet) == "errs" for r in routes)
        if is_bad or self.dice.random() < 0.15:
            self._set_alarm("ALARM")
        else:
            self._set_alarm(self.dice.choice(("OK", "OK", "INSUFFICIENT_DATA")))

    def calms_down(self) -> None:
        """Nothing fails from now on, and every version is good."""
        self.faults.rate = 0.0
        self.note("calm")
        self.behaviours = dict.fromkeys(self.behaviours, "good")
        self.driver.plan(lambda spec: Plan())
        for status in self.driver.list():  # those that would never have come up, or are half ended
            if status.phase in ("starting", "fetching", "preparing"):
                self.driver.end(status.instance_id, Failure("PingTimeout", "It never answered."))
        self.gateways.busy.clear()

    def gets_well(self) -> None:
        """A step of the calm."""
        self._set_alarm("OK")
        self.driver.step()
        self._see_ready()

    def _plan(self, spec: InstanceSpec) -> Plan:
        match self.behaviours.get(spec.group, "good"):
            case "cannot start":
                return Plan(until="starting", failure=Failure("Exited", "It ended.", ("no model",), 1))
            case "hangs":
                return Plan(until="starting")
            case _:
                return Plan()

    def _see_ready(self) -> None:
        self.proven |= {s.instance_id for s in self.driver.list() if s.phase == "ready"}

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

    def _fleet_of(self, id_: InstanceId) -> str:
        return self.store.tables.specs[id_].group
