"""A store with thousands of endpoints in it, made of one that really was created.

CreateEndpoint would start ten thousand instances. So the record of a real endpoint is copied under other names
while control is stopped, through the store itself; to Describe and List the copies are like any other. They are
`Failed`, so no reconciler has anything to do for them.
"""

import uuid

from benchmarks.platform import Platform
from clary.domain.clock import SystemClock
from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.domain.resources import ENDPOINT
from clary.store import Store


def fill(platform: Platform, template: str, count: int) -> None:
    """Adds `count` endpoints `stored-00000` … like `template`, and starts the server again."""
    platform.stop()
    found = platform.settings
    store = Store.open(found.store_url, SystemClock())
    with store.read() as tx:
        model = tx.resources.find(found.account, found.region, ENDPOINT.name, template)
    assert model is not None, f"endpoint {template} exists"
    with store.write() as tx:
        for number in range(count):
            name = f"stored-{number:05d}"
            tx.resources.insert(
                uid=uuid.uuid4().hex,
                account=found.account,
                region=found.region,
                kind=ENDPOINT.name,
                arn=ENDPOINT.arn(found.region, found.account, name),
                name=name,
                status="Failed",
                spec=model.spec_as(EndpointSpec),
                state=model.state_as(EndpointState),
            )
    platform.start()
