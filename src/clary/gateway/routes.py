"""The gateway's routes: endpoint key → plan (`plans`), and the targets and meters behind all plans.

The table is replaced or changed as a whole between two requests, so a request sees one state of it. A target that
leaves the routes lives on until its last request has ended; `when_idle` tells when that is.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.meters import Meter
from clary.gateway.models_book import Book
from clary.gateway.pipeline import Pipelines
from clary.gateway.plans import EndpointPlan, Hop, TargetState, VariantPlan
from clary.gateway.upstream import Open, Upstream
from clary.telemetry.metrics import Recorder

_LONGEST_REQUEST_S: Final = 600.0
"""After this no request of an older route is under way any more: its meter has been read for the last time."""


class RouteTable:
    """Endpoint key → plan, and the targets behind all plans."""

    def __init__(
        self, recorder: Recorder, loop: asyncio.AbstractEventLoop, *, retry_user_code: bool = False
    ) -> None:
        self.version = 0
        self.connections: set[Open] = set()
        self._recorder = recorder
        self._loop = loop
        self._retry_user_code = retry_user_code
        self._plans: dict[tuple[str, str, str], EndpointPlan] = {}
        self._routes: dict[EndpointKey, EndpointRoute] = {}
        self._targets: dict[Target, TargetState] = {}
        self._retired: set[TargetState] = set()
        self._meters: dict[_MeterId, Meter] = {}
        self._leaving: dict[
            Meter, float
        ] = {}  # of older routes, until when requests may still be counted there
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
        for meter in (*self._meters.values(), *self._leaving):
            meter.flush()
        now = self._loop.time()
        for meter in [meter for meter, until in self._leaving.items() if now > until]:
            del self._leaving[meter]

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
            for identity in _meter_ids(old):
                self._meters[identity].flush()  # counted with the old number of instances
        if route is None:
            del self._routes[key], self._plans[key]
        else:
            self._routes[key] = route
            self._plans[key] = self._plan(route)
        if old is not None:
            self._retire(_targets(old) - _targets(route))
            for identity in _meter_ids(old) - _meter_ids(route):
                # Requests that went to a fleet that leaves are still to be counted.
                self._leaving[self._meters.pop(identity)] = self._loop.time() + _LONGEST_REQUEST_S

    def _plan(self, route: EndpointRoute) -> EndpointPlan:
        plan = EndpointPlan(
            route,
            [self._plan_variant(route, variant) for variant in route.variants],
            [self._plan_variant(route, shadow) for shadow in route.shadows],
        )
        for named in plan.variants.values():
            for each in named.plans:
                for of_container in (each, *each.by_container.values()):
                    of_container.meter.instances = named.active
        return plan

    def _plan_variant(self, route: EndpointRoute, variant: VariantRoute) -> VariantPlan:
        meter = self._meter(route, variant)
        meter.instances = meter.fleet_instances = len(variant.targets)
        targets = [self._target(target) for target in variant.targets]
        retries = variant.retries_elsewhere or self._retry_user_code
        plan = VariantPlan(variant, targets, meter, retries_elsewhere=retries)
        for target, route_target in zip(targets, variant.targets, strict=True):
            target.plan = plan
            if variant.models and target.book is None:
                target.book = Book(route_target.token)
        plan.by_container = {
            each.container: self._plan_variant(route, each) for each in _by_container(variant)
        }
        return plan

    def _meter(self, route: EndpointRoute, variant: VariantRoute) -> Meter:
        identity = _meter_id(route, variant)
        meter = self._meters.get(identity)
        if meter is None:
            meter = self._meters[identity] = Meter(
                self._recorder,
                route,
                variant.name,
                variant.config_name,
                container=variant.container if _is_named(variant) else "",
                stages=() if variant.is_direct else variant.containers,
            )
        return meter

    def _target(self, target: Target) -> TargetState:
        state = self._targets.get(target)
        if state is None:
            upstream = Upstream(target.address, self._loop, self.connections)
            pipelines = Pipelines(target.address, self._loop, self.connections)
            hops = [self._hop(target.token, address) for address in target.addresses]
            state = self._targets[target] = TargetState(target, upstream, pipelines, hops)
        return state

    def _hop(self, token: str, address: str) -> Hop:
        upstream = Upstream(address, self._loop, self.connections)
        return Hop(token, upstream, Pipelines(address, self._loop, self.connections))

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


_MeterId = tuple[EndpointKey, str, str, str, str, str]


def _targets(route: EndpointRoute | None) -> set[Target]:
    """A target belongs to one endpoint only: instances are never shared."""
    return {target for variant in _all_variants(route) for target in variant.targets}


def _meter_ids(route: EndpointRoute | None) -> set[_MeterId]:
    return {_meter_id(route, variant) for variant in _all_variants(route)} if route is not None else set()


def _meter_id(route: EndpointRoute, variant: VariantRoute) -> _MeterId:
    container = "" if variant.containers else variant.container
    return route.key, route.name, variant.name, variant.fleet, variant.config_name, container


def _all_variants(route: EndpointRoute | None) -> Iterator[VariantRoute]:
    if route is not None:
        for variant in (*route.variants, *route.shadows):
            yield variant
            yield from _by_container(variant)


def _by_container(variant: VariantRoute) -> list[VariantRoute]:
    """What callers can name in it: for each container the variant as if that were its only one."""
    if not variant.is_direct:
        return []
    return [
        replace(
            variant,
            container=container,
            containers=(),
            targets=tuple(
                Target(target.instance_id, target.addresses[number], target.token)
                for target in variant.targets
            ),
        )
        for number, container in enumerate(variant.containers)
    ]


def _is_named(variant: VariantRoute) -> bool:
    """Whether it is one of those."""
    return variant.is_direct and not variant.containers
