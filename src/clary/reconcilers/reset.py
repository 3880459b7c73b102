"""Emptying the server at once: what `POST /_clary/reset` does with instances, routes and records."""

from clary.domain.endpoints import endpoint_key
from clary.domain.resources import ENDPOINT
from clary.drivers.base import Driver
from clary.reconcilers.base import Routing, Runner
from clary.store import Store


def empty(runner: Runner, store: Store, driver: Driver, routing: Routing) -> None:
    """Withdraws every route, kills every instance and forgets every resource; reconcilers wait meanwhile."""
    with runner.paused():
        with store.read() as tx:
            endpoints = tx.resources.all(ENDPOINT.name)
        keys = [endpoint_key(e.account, e.region, e.name) for e in endpoints]
        if keys:
            routing.withdraw(*keys)
        driver.remove([status.instance_id for status in driver.list()])
        store.clear()
