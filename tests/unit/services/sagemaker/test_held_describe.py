"""When a Describe may wait for the status to settle, and when it answers at once."""

from dataclasses import replace
from typing import Any

import pytest

from clary.domain.faults import Fault
from clary.drivers.fake import FakeDriver, Plan
from clary.wire.operations import Held
from control.harness import CRASHED, Control


def ask(control: Control, name: str = "e") -> Any:
    """DescribeEndpoint as the wire server asks it; the exception when it wants to be held."""
    handler = control.table.find("sagemaker", "DescribeEndpoint")
    assert handler is not None
    call = replace(control.call_of("sagemaker", "DescribeEndpoint"), may_hold=True)
    try:
        return handler(call, {"EndpointName": name})
    except Held as held:
        return held


def begin(control: Control) -> None:
    control.model()
    control.config()
    control.endpoint()


def test_H01_a_warm_start_is_waited_for_and_the_answer_is_final(control: Control) -> None:
    begin(control)
    told: list[bool] = []
    held = ask(control)  # nobody has looked at it yet
    assert isinstance(held, Held)
    held.watch(lambda: told.append(True))
    assert control.describe()["EndpointStatus"] == "Creating"  # who may not wait gets what stands
    control.runner.run_pending()
    for _ in range(2):  # preparing → fetching → starting
        control.driver.step()
        control.runner.sweep()
        control.runner.run_pending()
        assert isinstance(ask(control), Held)
    control.settle()
    assert told == [True]
    assert ask(control)["EndpointStatus"] == "InService"


def test_nothing_is_held_while_an_environment_is_built(control: Control) -> None:
    control.plan(Plan(until="preparing"))
    begin(control)
    control.runner.run_pending()
    [status] = control.driver.list()
    control.driver._instances[status.instance_id].status = replace(status, detail="building the environment")
    control.clock.advance(1.0)
    control.runner.run_pending()
    assert ask(control)["EndpointStatus"] == "Creating"


def test_what_nobody_can_tell_is_held_for_a_moment_only(control: Control) -> None:
    control.plan(Plan(until="preparing"))
    begin(control)
    assert isinstance(ask(control), Held)
    control.clock.advance(6.0)
    control.runner.run_pending()
    assert ask(control)["EndpointStatus"] == "Creating"


def test_a_deletion_is_waited_for(control: Control) -> None:
    begin(control)
    control.settle()
    control.call("DeleteEndpoint", EndpointName="e")
    assert isinstance(ask(control), Held)
    control.settle()
    with pytest.raises(Fault, match="Could not find endpoint"):
        ask(control)


def test_an_update_begins_without_an_outlook(control: Control) -> None:
    begin(control)
    control.settle()
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert isinstance(ask(control), Held)
    control.settle()
    assert ask(control)["EndpointStatus"] == "InService"


def test_a_failure_is_waited_for_until_it_is_final(control: Control) -> None:
    control.plan(Plan(until="starting", failure=CRASHED))
    begin(control)
    control.settle()
    assert ask(control)["EndpointStatus"] == "Failed"


def test_an_outlook_survives_a_restart(control: Control) -> None:
    begin(control)
    assert isinstance(control.driver, FakeDriver)
    control.runner.run_pending()
    control.driver.step()
    control.runner.sweep()
    control.runner.run_pending()
    control.clock.advance(60.0)
    assert isinstance(ask(control), Held)
