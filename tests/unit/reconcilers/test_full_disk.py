"""A disk that is full and stays so: endpoints can be deleted, with all their steps; nothing new is begun."""

from pathlib import Path

import pytest

from clary.domain.faults import Fault
from clary.links import route_messages
from clary.links.routes import RouteHub
from clary.settings import Settings
from control.harness import Control, Ids
from failing_disk import FailingDisk


def routed(root: Path) -> set[str]:
    return {route.key.name for route in route_messages.read_routes(root / "run" / "routes")}


def test_H01_an_endpoint_is_deleted_on_a_full_disk(root: Path, disk: FailingDisk) -> None:
    settings = Settings(data_dir=root, cache_dir=root)
    settings.routes_dir.mkdir(parents=True)
    control = Control(root, routing=RouteHub(settings), ids=Ids(), has_reserve=True)
    control.model()
    control.config()
    for name in ("kept", "full"):
        control.endpoint(name)
    control.settle(3)
    assert routed(root) == {"kept", "full"}
    with disk.full_at(1, lasting=True, in_place=True):
        with pytest.raises(Fault, match="free some space"):
            control.endpoint("new")
        control.call("DeleteEndpoint", EndpointName="full")
        control.settle(4)
        with pytest.raises(Fault, match="Could not find endpoint"):
            control.describe("full")
        assert len(control.held) == 1
        assert routed(root) == {"kept"}
    assert control.describe("kept")["EndpointStatus"] == "InService"
    control.endpoint("new")
    control.settle(3)
    assert control.describe("new")["EndpointStatus"] == "InService"
    control.close()


def test_on_a_full_disk_a_step_that_fails_takes_no_room(
    root: Path, disk: FailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again for as long as that takes, and the server's log has why it failed."""
    control = Control(root, ids=Ids(), has_reserve=True)
    control.model()
    control.config()
    control.endpoint()
    control.settle(3)

    def refuse(*keys: object) -> None:
        raise ConnectionError("a gateway is away")

    withdraw = control.routing.withdraw
    control.routing.withdraw = refuse  # type: ignore[method-assign]
    with disk.full_at(1, lasting=True, in_place=True):
        control.call("DeleteEndpoint", EndpointName="e")
        control.settle(4)
        assert "reconciling failed" in [record.message for record in caplog.records]
        assert "step failed" not in control.steps()
        control.routing.withdraw = withdraw  # type: ignore[method-assign]
        control.settle(20)
        with pytest.raises(Fault, match="Could not find endpoint"):
            control.describe()
    control.close()
