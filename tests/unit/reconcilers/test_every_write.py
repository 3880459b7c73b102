"""A disk that is full at any one write of control, from CreateEndpoint to InService: refused or carried on, never half.

Store and route files are real and lie on the failing disk; instances are the fake driver's.
"""

from pathlib import Path

import pytest

from clary.domain.faults import Fault
from clary.links import route_messages
from clary.links.routes import RouteHub
from clary.settings import Settings
from control.harness import Control, Ids
from failing_disk import FailingDisk

MOST_WRITES = 400


def control_at(directory: Path) -> Control:
    """Control with a model, a configuration, and an endpoint `kept` in service."""
    directory.mkdir()
    settings = Settings(data_dir=directory, cache_dir=directory)
    settings.routes_dir.mkdir(parents=True)
    control = Control(directory, routing=RouteHub(settings), ids=Ids())
    control.model()
    control.config()
    control.endpoint("kept")
    control.settle(3)
    assert control.describe("kept")["EndpointStatus"] == "InService"
    return control


def routed(directory: Path) -> set[str]:
    """The endpoints whose routes are on the disk: what a gateway would start from."""
    return {route.key.name for route in route_messages.read_routes(directory / "run" / "routes")}


@pytest.mark.parametrize("lasting", [True, False], ids=["full", "once"])
def test_a_create_refused_at_any_write_made_nothing(root: Path, disk: FailingDisk, lasting: bool) -> None:
    for at in range(1, MOST_WRITES):
        control = control_at(root / f"{at}")
        with disk.full_at(at, lasting=lasting) as attempt:
            fault = refused(control)
        if attempt.was_hit:
            assert fault is not None, attempt.failed
            assert (fault.code, fault.status) == ("ServiceUnavailable", 503), attempt.failed
            assert "disk" in fault.message
            with pytest.raises(Fault, match="Could not find endpoint"):
                control.describe()
            control.endpoint()
        control = control.restarted()
        control.settle(3)
        assert control.describe()["EndpointStatus"] == "InService"
        assert len(control.held) == 2
        assert routed(control.directory) == {"e", "kept"}
        control.close()
        if not attempt.was_hit:
            break
    assert MOST_WRITES > at > 2, attempt.writes


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [True, False], ids=["full", "once"])
def test_an_endpoint_once_acknowledged_comes_up_whichever_write_failed(
    root: Path, disk: FailingDisk, lasting: bool
) -> None:
    for at in range(1, MOST_WRITES):
        control = control_at(root / f"{at}")
        control.endpoint()
        with disk.full_at(at, lasting=lasting) as attempt:
            try_to_settle(control)
        where = f"at write {at}: {attempt.failed[:1]}"
        assert control.describe("kept")["EndpointStatus"] == "InService", where
        assert control.describe()["EndpointStatus"] in ("Creating", "InService"), where
        assert "kept" in routed(control.directory), where
        control = control.restarted()
        control.settle(8, step_s=30.0)
        assert control.describe()["EndpointStatus"] == "InService", where
        assert len(control.held) == 2, where
        assert routed(control.directory) == {"e", "kept"}, where
        control.close()
        if not attempt.was_hit:
            break
    assert MOST_WRITES > at > 9, attempt.writes
    assert any("routes/" in write for write in attempt.writes)


def refused(control: Control) -> Fault | None:
    try:
        control.endpoint()
    except Fault as fault:
        return fault
    return None


def try_to_settle(control: Control) -> None:
    """As the runner's threads do: what a worker raises ends that step and nothing else."""
    for _ in range(4):
        try:
            control.settle(1)
        except Fault as fault:
            assert "disk" in fault.message
        control.clock.advance(120.0)  # a lease that could not be given back runs out
