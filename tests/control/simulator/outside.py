"""What the reconciler calls: gateways, a driver and a store that hold each call to the laws."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clary.domain.instances import InstanceId, InstanceSpec
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.drivers.fake import FakeDriver
from control.memory_store import MemoryTransaction
from control.simulator.faults import Faults, Killed
from control.simulator.laws import Laws, Observed, targets


class Gateways:
    """Two of them. What each knows, and where requests are under way."""

    def __init__(self, laws: Laws, faults: Faults, *, acknowledge: bool) -> None:
        self.known: list[EndpointRoute | None] = [None, None]
        self.busy: set[InstanceId] = set()
        self._laws = laws
        self._faults = faults
        self._acknowledges = acknowledge

    def publish(self, route: EndpointRoute) -> None:
        for number, held in enumerate(self.known):
            if held is not None:
                self._laws.check(route.generation >= held.generation, "a route went backwards")
                is_same = route.generation > held.generation or route == held
                self._laws.check(is_same, "a generation means two routes")
            if self._acknowledges or number == 0:
                self._apply(number, route)
            if number == 0 and self._faults.happens(0.5):
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


class GuardedDriver(FakeDriver):
    """Holds the reconciler to what it owes instances that serve."""

    def __init__(self, laws: Laws, now: Callable[[], float]) -> None:
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


class WatchedStore:
    """What a commit made of the endpoint is judged; each commit may be hit, before or after."""

    def __init__(self, world: Observed, laws: Laws, faults: Faults, note: Callable[[str], None]) -> None:
        self._world, self._laws, self._faults, self._note = world, laws, faults, note
        self.read = world.store.read

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator[MemoryTransaction]:
        before = self._world.endpoint
        self._faults.before_call(Killed)
        with self._world.store.write() as tx:
            yield tx
        after = self._world.endpoint
        if after is not None and after is not before:
            if before is not None and before.status != after.status:
                self._note(f"was {before.status}")
            self._laws.written(before, after)
        self._faults.after_call()
