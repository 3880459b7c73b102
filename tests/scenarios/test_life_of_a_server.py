"""Starting, stopping and losing parts: what a person does with `clary up`, and what must still be there after."""

import os
import signal
from pathlib import Path

import pytest

from clary.host import limits
from clary.links import processes
from clary.testing.server import RunningServer
from platform_models import (
    deploy,
    eventually,
    invoke,
    minder_of,
    predictions,
    processes_of,
    regressor,
    rows,
    wait_for_status,
)


@pytest.fixture
def data_dir(place: Path) -> Path:
    return place / "data"


def test_Z02_ctrl_c_and_up_again_finds_everything_as_it_was(data_dir: Path) -> None:
    booster, features = regressor(), rows(3)
    server = RunningServer(data_dir)
    server.start()
    try:
        deploy(server, "kept", booster)
        created = server.client("sagemaker").describe_endpoint(EndpointName="kept")["CreationTime"]
        processes.signal(server.supervisor, signal.SIGINT)
        eventually(lambda: not processes_of(server), "every process to end")
        server.start()
        described = wait_for_status(server, "kept", "InService")
        assert described["CreationTime"] == created
        expected = pytest.approx(predictions(booster, features), rel=1e-6)
        eventually(lambda: _answers(server, "kept", features), "its instance to be back")
        assert invoke(server, "kept", features) == expected
        uris = server.client("s3").list_objects_v2(Bucket="models")["Contents"]
        assert [found["Key"] for found in uris] == ["kept/model.tar.gz"]
    finally:
        server.stop()
    assert processes_of(server) == []


def test_Z02_a_killed_supervisor_is_followed_by_one_that_adopts_everything(data_dir: Path) -> None:
    booster, features = regressor(), rows(3)
    with RunningServer(data_dir) as server:
        deploy(server, "adopted", booster)
        port, gateway = server.settings.port, server.process("gateway-0")
        expected = invoke(server, "adopted", features)
        processes.signal(server.supervisor, signal.SIGKILL)
        assert invoke(server, "adopted", features) == expected
        server.start()
        assert server.settings.port == port
        assert server.process("gateway-0") == gateway
        assert invoke(server, "adopted", features) == expected
        eventually(lambda: "found its processes still running" in server.up_log.read_text(), "it to say so")


def test_Z02_down_leaves_nothing_even_when_supervisor_and_host_are_dead(data_dir: Path) -> None:
    server = RunningServer(data_dir)
    server.start()
    deploy(server, "left", regressor())
    processes.signal(server.supervisor, signal.SIGKILL)
    processes.signal(server.process("host"), signal.SIGKILL)
    server.stop()
    assert processes_of(server) == []
    assert list(server.settings.instances_dir.iterdir()) == []
    assert not [path for path in data_dir.rglob("*") if path.is_socket()]


def test_Z04_a_killed_instance_is_replaced_and_the_reason_is_told(data_dir: Path) -> None:
    booster, features = regressor(), rows(2)
    with RunningServer(data_dir) as server:
        deploy(server, "replaced", booster)
        first = _ready_instances(server, "replaced")
        os.kill(limits.descendants(minder_of(server))[-1], signal.SIGKILL)  # the instance itself
        eventually(lambda: set(_ready_instances(server, "replaced")) - set(first), "another instance")
        eventually(lambda: _answers(server, "replaced", features), "it to answer")
        assert invoke(server, "replaced", features) == pytest.approx(predictions(booster, features), rel=1e-6)
        story = server.running.client().admin("GET", "/_clary/why/replaced")
        assert any("SIGKILL" in str(event["Detail"]) for event in story["Events"]), story["Events"]


def _ready_instances(server: RunningServer, name: str) -> list[str]:
    endpoint = next(found for found in server.status()["Endpoints"] if found["Name"] == name)
    return [instance["Id"] for instance in endpoint["Instances"] if instance["Phase"] == "ready"]


def _answers(server: RunningServer, name: str, features: object) -> bool:
    runtime = server.client("sagemaker-runtime")
    try:
        invoke(server, name, features)
    except runtime.exceptions.ServiceUnavailable:
        return False
    return True
