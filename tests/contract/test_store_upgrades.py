"""Stores of other versions: an older one is brought up and read, a newer one is left alone."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from clary.domain.deployments import AT_ONCE
from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.store import Store, migrations
from clary.store.database import HEAD, StoreTooNew
from clary.testing.clock import FakeClock

ACCOUNT, REGION = "123456789012", "us-east-1"

# As the version before deployments, shadows and capture wrote them.
VARIANT = {
    "name": "AllTraffic",
    "model_name": "m",
    "image": "sagemaker-xgboost:1.7-1",
    "instance_type": "ml.m5.large",
    "vcpus": 2,
    "memory_bytes": 8589934592,
    "accelerators": 0,
    "weight": 1.0,
    "count": 2,
    "container": "primary",
    "environment": {},
    "artifacts": [],
    "execution_role_arn": "",
    "network_isolated": False,
    "download_timeout_s": 3600.0,
    "startup_timeout_s": 240.0,
    "routing": "RANDOM",
    "shows_routing": False,
}
FLEET = {"id": "f", "config_name": "c", "variants": [VARIANT]}
SPEC = {"fleet": FLEET, "deployment_started_at": "2026-11-21T09:00:00Z"}
ROUTE = {
    "key": [ACCOUNT, REGION, "e"],
    "name": "e",
    "uid": "u",
    "generation": 3,
    "variants": [
        {
            "name": "AllTraffic",
            "weight": 1.0,
            "targets": [{"instance_id": "i-1", "address": "unix:/s", "token": ""}],
            "routing": "RANDOM",
            "container": "primary",
            "retries_elsewhere": True,
        }
    ],
    "invocation_timeout_s": 60.0,
}
STATE = {
    "fleet": FLEET,
    "images": {"AllTraffic": "sagemaker-xgboost:1.7-1"},
    "deployed_at": "2026-11-21T09:00:00Z",
    "route": ROUTE,
    "route_generation": 3,
    "is_route_acked": True,
    "problem": {"reason": "why", "variant": "AllTraffic", "instance_id": "i-1", "failure": None},
    "outlook": "unknown",
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def at_revision(url: str, revision: str) -> sa.Engine:
    """A store as the version left it that made this revision."""
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_an_endpoint_of_the_first_version_is_read(url: str) -> None:
    engine = at_revision(url, "0001")
    row = {
        "uid": "u",
        "account": ACCOUNT,
        "region": REGION,
        "kind": "endpoint",
        "arn": "arn:e",
        "parent": "",
        "name": "e",
        "lower_name": "e",
        "status": "InService",
        "spec": json.dumps(SPEC),
        "state": json.dumps(STATE),
        "generation": 1,
        "version": 1,
        "created_at": 0,
        "modified_at": 0,
    }
    with engine.begin() as connection:
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        connection.execute(sa.text(f"INSERT INTO resources ({names}) VALUES ({values})"), row)
    engine.dispose()

    store = Store.open(url, FakeClock(), is_durable=False)
    with store.write() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "endpoint", "e")
        assert found is not None
        assert tx.alarm_history.forget_old() == 0
        assert tx.deliveries.next("u") is None
    store.close()
    spec, state = found.spec_as(EndpointSpec), found.state_as(EndpointState)
    assert (spec.policy, spec.deployment_id, spec.fleet.shadows, spec.fleet.capture) == (
        AT_ONCE,
        "",
        (),
        None,
    )
    assert spec.fleet == state.fleet
    assert (state.deployment, state.leftover, state.troubles) == (None, None, {})
    assert state.route is not None
    assert (state.route.variants[0].share, state.route.shadows) == (1.0, ())


def test_a_store_of_a_newer_version_is_left_alone(url: str) -> None:
    engine = at_revision(url, "head")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StoreTooNew, match=f"its revision is 9999.* up to {HEAD}"):
        Store.open(url, FakeClock(), is_durable=False)
