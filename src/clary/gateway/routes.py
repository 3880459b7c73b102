"""The gateway's routes, made ready for use: everything an invocation needs is computed when a route changes.

The table is replaced or changed as a whole between two requests, so a request sees one state of it. A target that
leaves the routes lives on until its last request has ended; `when_idle` tells when that is.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.balance import Weighted
from clary.gateway.meters import Meter
from clary.gateway.pipeline import Pipelines
from clary.gateway.upstream import Open, Upstream
from clary.telemetry.metrics import Recorder


class TargetState:
    """One address that takes traffic, with the requests this gateway has outstanding there."""

    __slots__ = ("instance_id", "on_idle", "outstanding", "pipelines", "request_line", "upstream")

    def __init__(self, target: Target, upstream: Upstream, pipelines: Pipelines) -> None:
        self.instance_id = target.instance_id
        self.upstream = upstream
        self.pipelines = pipelines
        self.outstanding = 0
        self.on_idle: Callable[[TargetState], None] | None = None
        self.request_line: Final = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\n" + (
            f"authorization: Bearer {target.token}\r\n".encode() if target.token else b""
        )

    def release(self) -> None:
        """A request there has ended."""
        self.outstanding -= 1
        if self.on_idle is not None and not self.outstanding:
            self.on_idle(self)

    def close(self) -> None:
        """Keeps no idle connections any more."""
        self.upstream.close()
        self.pipelines.close()


class VariantPlan:
    """One variant, ready to be chosen and answered for."""

    __slots__ = (
        "container",
        "fields",
        "meter",
        "name",
        "pipelines",
        "retries_elsewhere",
        "routing",
        "targets",
    )

    def __init__(self, route: VariantRoute, targets: list[TargetState], meter: Meter) -> None:
        self.name = route.name
        self.container = route.container
        self.routing = route.routing
        self.retries_elsewhere = route.retries_elsewhere
        self.pipelines = route.pipelines
        self.targets = targets
        self.meter = meter
        self.fields = f"x-Amzn-Invoked-Production-Variant: {route.name}\r\nx-amzn-RequestId: ".encode()


class EndpointPlan:
    """One endpoint, ready to be invoked."""

    __slots__ = ("any_variant", "key", "name", "timeout_s", "variants", "weighs_nothing")

    def __init__(self, route: EndpointRoute, variants: list[VariantPlan]) -> None:
        self.key = route.key
        self.name = route.name
        self.timeout_s = route.invocation_timeout_s
        self.variants = {variant.name: variant for variant in variants}
        weights = {variant.name: variant.weight for variant in route.variants}
        # A variant without a target takes no share: the others answer rather than nobody.
        self.any_variant = Weighted([(plan, weights[plan.name]) for plan in variants if plan.targets])
        self.weighs_nothing = not any(weight > 0 for weight in weights.values())


class RouteTable:
    """Endpoint key → plan, and the targets behind all plans."""

    def __init__(self, recorder: Recorder, loop: asyncio.AbstractEventLoop) -> None:
        self.version = 0
        self.connections: set[Open] = set()
        self._recorder = recorder
        self._loop = loop
        self._plans: dict[tuple[str, str, str], EndpointPlan] = {}
        self._routes: dict[EndpointKey, EndpointRoute] = {}
        self._targets: dict[Target, TargetState] = {}
        self._retired: set[TargetState] = set()
        self._meters: dict[tuple[EndpointKey, str, str], Meter] = {}
        self._watches: list[tuple[set[TargetState], Callable[[], None]]] = []

    def find(self, key: tuple[str, str, str]) -> EndpointPlan | None:
        """The plan of (account, region, lower-case name)."""
        return self._plans.get(key)

    def replace(self, version: int, routes: Iterable[EndpointRoute]) -> None:
        """Makes these all the routes there are."""
        wanted = {route.key: route for route in routes}
        self.change(version, wanted.values(), [key for key in self._routes if key not in wanted])

    def change(self, version: int, put: Iterable[EndpointRoute], removed: Iterable[EndpointKey]) -> None:
        for key in removed:
            self._set(key, None)
        for route in put:
            self._set(route.key, route)
        self.version = version

    def flush_meters(self) -> None:
        for meter in self._meters.values():
            meter.flush()

    @property
    def outstanding(self) -> int:
        """Requests under way at all targets."""
        return sum(target.outstanding for target in (*self._targets.values(), *self._retired))

    def busy(self, ids: Collection[InstanceId]) -> set[InstanceId]:
        """Those of the instances that have requests outstanding."""
        return {target.instance_id for target in self._find(ids) if target.outstanding}

    def when_idle(self, ids: Collection[InstanceId], done: Callable[[], None]) -> Callable[[], None]:
        """Calls `done` once none of the instances has requests outstanding, perhaps at once.

        Returns a function that forgets the wish.
        """
        busy = {target for target in self._find(ids) if target.outstanding}
        if not busy:
            done()
            return lambda: None
        for target in busy:
            target.on_idle = self._note_idle
        watch = (busy, done)
        self._watches.append(watch)
        return lambda: self._watches.remove(watch) if watch in self._watches else None

    def close(self) -> None:
        for target in (*self._targets.values(), *self._retired):
            target.close()

    def _set(self, key: EndpointKey, route: EndpointRoute | None) -> None:
        old = self._routes.get(key)
        if old == route:
            return
        if old is not None:
            for variant in old.variants:
                self._meter(old, variant).flush()  # counted with the old number of instances
        if route is None:
            del self._routes[key], self._plans[key]
        else:
            self._routes[key] = route
            self._plans[key] = EndpointPlan(route, [self._plan_variant(route, v) for v in route.variants])
        if old is not None:
            self._retire(_targets(old) - _targets(route))
            for identity in _meter_identities(old) - _meter_identities(route):
                del self._meters[identity]

    def _plan_variant(self, route: EndpointRoute, variant: VariantRoute) -> VariantPlan:
        meter = self._meter(route, variant)
        meter.instances = len(variant.targets)
        return VariantPlan(variant, [self._target(target) for target in variant.targets], meter)

    def _meter(self, route: EndpointRoute, variant: VariantRoute) -> Meter:
        identity = (route.key, route.name, variant.name)
        meter = self._meters.get(identity)
        if meter is None:
            meter = self._meters[identity] = Meter(self._recorder, route, variant.name)
        return meter

    def _target(self, target: Target) -> TargetState:
        state = self._targets.get(target)
        if state is None:
            upstream = Upstream(target.address, self._loop, self.connections)
            pipelines = Pipelines(target.address, self._loop, self.connections)
            state = self._targets[target] = TargetState(target, upstream, pipelines)
        return state

    def _retire(self, targets: set[Target]) -> None:
        for target in targets:
            state = self._targets.pop(target)
            state.close()
            if state.outstanding:
                state.on_idle = self._note_idle
                self._retired.add(state)

    def _find(self, ids: Collection[InstanceId]) -> list[TargetState]:
        return [t for t in (*self._targets.values(), *self._retired) if t.instance_id in ids]

    def _note_idle(self, target: TargetState) -> None:
        target.on_idle = None
        self._retired.discard(target)
        for watch in list(self._watches):
            watch[0].discard(target)
            if not watch[0]:
                self._watches.remove(watch)
                watch[1]()


def _targets(route: EndpointRoute | None) -> set[Target]:
    """A target belongs to one endpoint only: instances are never shared."""
    return (
        {target for variant in route.variants for target in variant.targets} if route is not None else set()
    )


def _meter_identities(route: EndpointRoute | None) -> set[tuple[EndpointKey, str, str]]:
    return {(route.key, route.name, v.name) for v in route.variants} if route is not None else set()
