"""IAM, STS and ECR over a store of their own, called by real botocore, every answer checked against its shape."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clary.catalog import Catalog
from clary.services import ecr, iam, sts
from clary.services.authorization import Authorization
from clary.store import Store
from clary.testing.clock import FakeClock
from clary.testing.wire import TEST_ROOT, connect, example_keyring
from clary.wire import validate
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.server import WireServer
from clary.wire.sigv4 import Credentials, KeyRing, Verifier


@dataclass
class Account:
    """All that answers, and clients of whoever has a key."""

    identities: iam.Identities
    keyring: KeyRing
    server: WireServer
    announced: list[int]

    def client(self, service: str, credentials: Credentials = TEST_ROOT) -> Any:
        return connect(self.server, keyring=self.keyring, credentials=credentials).client(service)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    clock = FakeClock()
    store = Store.open(f"sqlite:///{tmp_path}/store.db", clock, is_durable=False)
    keyring = example_keyring()
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex  # noqa: E731
    announced: list[int] = []
    identities = iam.Identities(store, keyring, tmp_path, new_id, lambda: announced.append(1))
    identities.apply()
    table = OperationTable()
    table.add("iam", *iam.resources(store, identities, new_id))
    table.add("sts", *sts.resources(keyring, lambda: identities.rights, time.time))
    table.add("ecr", *ecr.resources(Catalog.load()))
    server = WireServer(
        ServiceModels(table.implemented()),
        table,
        validate=validate.validate,
        keys=Verifier(keyring),
        clock=clock,
        new_request_id=lambda: str(uuid.uuid4()),
        authorize=Authorization(lambda: identities.rights, lambda: datetime.now(UTC)).check,
    )
    yield Account(identities, keyring, server, announced)
    server.close()
    store.close()
