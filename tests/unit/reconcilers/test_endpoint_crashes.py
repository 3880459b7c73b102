"""Control is killed after every outside call and every commit, and started again: it always converges."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clary.domain.deployments import CapacitySize, DeploymentPolicy
from clary.domain.faults import Fault
from clary.domain.routes import EndpointRoute
from clary.drivers.fake import Plan
from control.crashing import Crash, CrashAt
from control.harness import CRASHED, Control

MOST_POINTS = 300

HALF = CapacitySize("CAPACITY_PERCENT", 50)
CANARY = DeploymentPolicy("CANARY", HALF, wait_s=3600.0, alarms=("errors",))
ROLLING = DeploymentPolicy("ROLLING", HALF, wait_s=5.0, alarms=("errors",))


def create(control: Control) -> None:
    control.endpoint()
    control.settle(6)


def delete(control: Control) -> None:
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(6)


def update(control: Control) -> None:
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    control.settle(6)


def proceed(control: Control) -> None:
    control.settle(8)


def proceed_until_alarmed(control: Control) -> None:
    """The alarm comes when the new fleet has its first requests."""
    control.settle(2)
    control.alarm("errors", "ALARM")
    control.settle(4)


def grow(control: Control) -> None:
    numbers = [{"VariantName": "A", "DesiredInstanceCount": 3, "DesiredWeight": 0.5}]
    control.call("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=numbers)
    control.settle(6)


def lose_all(control: Control) -> None:
    for id_ in control.held:
        control.driver.lose(id_)
    control.runner.sweep()
    control.settle(6)


def prepared(directory: Path) -> Control:
    directory.mkdir()
    control = Control(directory)
    control.model()
    control.config("c", {"VariantName": "A", "InitialInstanceCount": 2}, {"VariantName": "B"})
    control.config("d", {"VariantName": "A"})
    return control


def standing(directory: Path) -> Control:
    control = prepared(directory)
    control.endpoint()
    control.settle(5)
    assert control.describe()["EndpointStatus"] == "InService"
    return control


def updating(policy: DeploymentPolicy) -> Callable[[Path], Control]:
    def prepare(directory: Path) -> Control:
        control = standing(directory)
        control.alarm("errors", "OK")
        control.update("d", policy)
        return control

    return prepare


def failing(directory: Path) -> Control:
    control = prepared(directory)
    control.plan(Plan(until="starting", failure=CRASHED), "B/")
    return control


def one_fleet(control: Control, config: str, count: int) -> None:
    """In service, every instance routed and on record, nothing else anywhere."""
    assert control.describe()["EndpointStatus"] == "InService"
    assert control.describe()["EndpointConfigName"] == config
    with control.store.read() as tx:
        recorded = set(tx.instances.phases())
    assert set(control.held) == set(control.routing.targets("e")) == recorded
    assert len(recorded) == count


def no_replacement(control: Control, count: int) -> None:
    """Crashes of control cost no instance: none ran twice, none was started in vain."""
    assert len(control.driver.started) == count


def created(control: Control) -> None:
    one_fleet(control, "c", 3)
    no_replacement(control, 3)


def deleted(control: Control) -> None:
    with pytest.raises(Fault, match="Could not find endpoint"):
        control.describe()
    nothing_left(control)
    control.endpoint()  # the name is free again


def failed(control: Control) -> None:
    assert control.describe()["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in control.describe()["FailureReason"]
    nothing_left(control)


def nothing_left(control: Control) -> None:
    with control.store.read() as tx:
        assert tx.instances.phases() == {}
    assert control.held == {}
    assert control.routing.routes == {}


def updated(control: Control) -> None:
    one_fleet(control, "d", 1)


def grown(control: Control) -> None:
    one_fleet(control, "c", 4)
    no_replacement(control, 4)


def rolled_back(control: Control) -> None:
    control.alarm("errors", "ALARM")  # control may have been killed before it came
    control.settle(6)
    one_fleet(control, "c", 3)
    assert control.describe()["FailureReason"].startswith("Deployment failed: one or more alarms")


def replaced(control: Control) -> None:
    one_fleet(control, "c", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "act", "after"),
    [
        (prepared, create, created),
        (standing, delete, deleted),
        (failing, create, failed),
        (standing, update, updated),
        (updating(CANARY), proceed_until_alarmed, rolled_back),
        (updating(ROLLING), proceed, updated),
        (standing, grow, grown),
        (standing, lose_all, replaced),
    ],
    ids=[
        "create",
        "delete",
        "failing-create",
        "update",
        "canary-alarmed",
        "rolling",
        "grow",
        "after-a-restart",
    ],
)
def test_H01_control_may_be_killed_after_every_call(
    tmp_path: Path,
    before: Callable[[Path], Control],
    act: Callable[[Control], None],
    after: Callable[[Control], None],
) -> None:
    for at in range(1, MOST_POINTS):
        control = before(tmp_path / str(at))
        crash = CrashAt()
        control = control.restarted(crash)
        crash.arm(at)
        try:
            act(control)
            has_crashed = False
        except Crash:
            has_crashed = True
        control = control.restarted()
        control.settle(8)
        after(control)
        control.close()
        if not has_crashed:
            assert at > 10, "the crash points were not seen"
            return
    pytest.fail("more crash points than expected")


def test_H01_a_generation_never_means_two_routes(tmp_path: Path) -> None:
    """Killed right after a route was published, while another instance dies: the next route is a newer one."""
    control = prepared(tmp_path / "data")
    control.endpoint()
    control.settle(5)
    first, second, third = control.routing.targets("e")
    control.driver.end(first)
    publish = control.routing.publish

    def publish_and_crash(route: EndpointRoute) -> None:
        publish(route)
        raise Crash

    control.routing.publish = publish_and_crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        control.settle(2)
    control.routing.publish = publish  # type: ignore[method-assign]
    control.driver.end(second)
    control = control.restarted()
    control.settle(8)  # the fake gateways refuse a generation with two meanings
    one_fleet(control, "c", 3)
    assert third in control.held
    control.close()
