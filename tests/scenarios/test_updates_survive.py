"""An update goes on whatever dies meanwhile: control again and again, and instances of the old and the new fleet.

No request is lost, also without a client's retries: the model is served by our own handler.
"""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from clary.host import limits
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.testing.server import RunningServer
from platform_load import Load
from platform_models import (
    IMAGE,
    ROLE,
    booster_archive,
    eventually,
    minder_of,
    regressor,
    rows,
    status,
    upload,
    wait_for_status,
)

QUARTER = {"Type": "CAPACITY_PERCENT", "Value": 25}


def linear(wait_s: int) -> dict[str, Any]:
    routing = {"Type": "LINEAR", "LinearStepSize": QUARTER, "WaitIntervalInSeconds": wait_s}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


STRATEGIES: dict[str, dict[str, Any]] = {
    "linear": linear(2),
    "rolling": {"RollingUpdatePolicy": {"MaximumBatchSize": QUARTER, "WaitIntervalInSeconds": 2}},
}


@pytest.fixture(scope="module")
def durable() -> Iterator[RunningServer]:
    """Control is killed here, so the server is this module's own."""
    with RunningServer() as running:
        running.wait_for_environment("xgboost")
        uri = upload(running, "m/model.tar.gz", booster_archive(regressor()))
        sagemaker = running.client("sagemaker")
        container = {"Image": IMAGE, "ModelDataUrl": uri}
        sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": "m",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 4,
        }
        for name in ("one", "two"):
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        yield running


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_H14_Z02_an_update_goes_on_after_every_kill_of_control(durable: RunningServer, strategy: str) -> None:
    sagemaker = durable.client("sagemaker")
    sagemaker.create_endpoint(EndpointName=strategy, EndpointConfigName="one")
    wait_for_status(durable, strategy, "InService")
    with Load(durable, strategy, rows(1)) as load:
        sagemaker.update_endpoint(
            EndpointName=strategy, EndpointConfigName="two", DeploymentConfig=STRATEGIES[strategy]
        )
        kills = 0
        while not kills or not _has_arrived(durable, strategy):
            if kills < 6:
                _kill_control(durable)
                kills += 1
                load.more(40)
        load.more()
        assert load.failures == []
    eventually(lambda: len(_instances(durable)) == 4, "the old fleet to be gone")
    told = durable.running.client().admin("GET", f"/_clary/deployments/{strategy}")
    assert [record["Verdict"] for record in told["Deployments"]] == ["succeeded", "succeeded"]
    sagemaker.delete_endpoint(EndpointName=strategy)
    eventually(lambda: not _instances(durable), "nothing to be left")


def test_H14_H10_instances_that_die_during_an_update_cost_nothing(durable: RunningServer) -> None:
    sagemaker = durable.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="dying", EndpointConfigName="one")
    wait_for_status(durable, "dying", "InService")
    with Load(durable, "dying", rows(1)) as load:
        sagemaker.update_endpoint(EndpointName="dying", EndpointConfigName="two", DeploymentConfig=linear(4))
        both = eventually(lambda: _all_ready(durable, "dying", 8), "both fleets")
        # One of each, as they come fleet by fleet. Both are looked for first: the old fleet does not stay for long.
        victims = [_instance(durable, id_) for id_ in both[::4]]
        for victim in victims:
            processes.signal(victim, signal.SIGKILL)
            load.more()
        eventually(lambda: _has_arrived(durable, "dying"), "the update")
        assert load.failures == []
    sagemaker.delete_endpoint(EndpointName="dying")
    eventually(lambda: not _instances(durable), "nothing to be left")


def _has_arrived(server: RunningServer, name: str) -> bool:
    try:
        found = status(server, name)
    except (ClientError, BotoCoreError):  # control is on its way back
        return False
    return (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "two")


def _kill_control(server: RunningServer) -> None:
    before = eventually(lambda: server.process("control"), "control")
    processes.signal(before, signal.SIGKILL)

    def is_back() -> bool:
        now = server.process("control")
        return now is not None and now != before and processes.is_alive(now)

    eventually(is_back, "another control")


def _instances(server: RunningServer) -> list[str]:
    return [path.name for path in server.settings.instances_dir.iterdir() if path.is_dir()]


def _ready(server: RunningServer, name: str) -> list[str]:
    endpoint = next(found for found in server.status()["Endpoints"] if found["Name"] == name)
    return [instance["Id"] for instance in endpoint["Instances"] if instance["Phase"] == "ready"]


def _all_ready(server: RunningServer, name: str, count: int) -> list[str] | None:
    found = _ready(server, name)
    return found if len(found) == count else None


def _instance(server: RunningServer, id_: str) -> ProcessIdentity | None:
    """The process of the instance itself: the last below the minder."""
    return processes.identify(limits.descendants(minder_of(server, id_))[-1])
