"""Updates by policy, through the reconciler: what gateways get, what is written down, who is told."""

import logging

import pytest

from clary.domain.deployments import CapacitySize, DeploymentPolicy
from clary.domain.endpoints import EndpointState
from clary.domain.instances import Failure
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.drivers.fake import Plan
from control.harness import ACCOUNT, CRASHED, REGION, Control

ONE = CapacitySize("INSTANCE_COUNT", 1)
CANARY = DeploymentPolicy("CANARY", ONE, wait_s=60.0, alarms=("Errors",))


def serving(control: Control, count: int = 2) -> None:
    control.config("two", {"InitialInstanceCount": count})
    control.config("next", {"InitialInstanceCount": count})
    control.endpoint(config="two")
    control.settle(5, step_s=0.1)
    control.alarm("Errors", "OK")


def route(control: Control) -> EndpointRoute:
    return control.routing.routes[EndpointKey(ACCOUNT, REGION, "e")]


def shares(control: Control) -> dict[str, float]:
    return {r.config_name: round(r.share, 3) for r in route(control).variants}


def run(control: Control, seconds: float) -> None:
    """So much time, in which only what is due is done."""
    for _ in range(int(seconds * 4)):
        control.driver.step()
        control.runner.sweep()
        control.runner.run_pending()
        control.clock.advance(0.25)


def test_D02_a_canary_takes_its_share_and_then_everything(control: Control) -> None:
    serving(control)
    control.update("next", CANARY)
    run(control, 10)
    assert shares(control) == {"": 0.5, "next": 0.5}
    assert control.describe()["EndpointStatus"] == "Updating"
    assert control.describe()["EndpointConfigName"] == "two"
    run(control, 70)
    assert shares(control) == {"next": 1.0}
    assert control.describe()["EndpointStatus"] == "Updating"
    run(control, 60)
    assert control.describe()["EndpointConfigName"] == "next"
    assert control.describe()["EndpointStatus"] == "InService"
    assert len(control.held) == 2
    assert shares(control) == {"next": 1.0}  # its metrics keep the name of the configuration


def test_D05_a_rollback_begins_within_seconds_of_the_alarm_and_is_loud(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    control.reconciler._tell = lambda endpoint, verdict: told.append(verdict)
    serving(control)
    old = control.routing.targets("e")
    control.update("next", CANARY)
    run(control, 10)
    control.alarm("Errors", "ALARM")
    with caplog.at_level(logging.WARNING):
        run(control, 1.5)
    assert control.routing.targets("e") == old
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "two")
    assert shown["FailureReason"].startswith("Deployment failed: one or more alarms")
    assert "Alarm Errors: ALARM (Errors was set to ALARM)." in shown["FailureReason"]
    assert {"rolling back", "rolled back"} <= set(control.steps())
    assert told == ["succeeded", "rolled-back"]
    assert any(getattr(r, "step", "") == "rolling back" and "Errors" in r.reason for r in caplog.records)  # type: ignore[attr-defined]
    run(control, 10)
    assert set(control.held) == set(old)


def test_D05_an_alarm_of_almost_that_name_does_not_count(control: Control) -> None:
    serving(control)
    control.update("next", DeploymentPolicy(alarms=("errors",)))
    run(control, 3)
    assert "errors: deleted" in control.describe()["FailureReason"]


def test_Z03_the_record_has_every_step_with_its_evidence(control: Control) -> None:
    serving(control)
    control.update("next", CANARY)
    run(control, 140)
    verdict, record = control.record()
    assert (verdict, record.verdict, record.reason) == ("succeeded", "succeeded", "")
    assert record.ended_at is not None
    steps = [step.step for step in record.steps]
    assert steps == [
        "deployment began",
        "new instances ready",
        "traffic shifted",
        "bake passed",
        "traffic shifted",
        "bake passed",
        "in service",
    ]
    shifted = record.steps[2].evidence
    assert shifted["activated"] == {"AllTraffic": 1}
    assert shifted["shares"] == {"AllTraffic (old)": 0.5, "AllTraffic (new)": 0.5}
    assert shifted["alarms"] == {"Errors": "OK"}
    assert record.steps[3].evidence["seconds"] == 60.0
    assert record.steps[-1].evidence["route_generation"] == route(control).generation
    assert len(record.steps[1].evidence["ready"]["AllTraffic"]) == 2


def test_Z03_the_record_says_what_failed_and_why_it_was_rolled_back(control: Control) -> None:
    serving(control)
    control.plan(Plan(until="starting", failure=CRASHED))
    control.update("next", DeploymentPolicy())
    run(control, 5)
    verdict, record = control.record()
    assert verdict == "rolled-back"
    assert "did not pass the ping health check" in record.reason
    (ended, *_) = [step for step in record.steps if step.step == "instance exited"]
    assert ended.evidence["log_tail"] == ["bad model"]
    (back,) = [step for step in record.steps if step.step == "rolling back"]
    assert (back.evidence["code"], back.evidence["stage"]) == ("Exited", "provisioning")


def test_Z03_a_creation_that_fails_has_a_record(control: Control) -> None:
    control.plan(Plan(until="starting", failure=CRASHED))
    control.endpoint()
    run(control, 6)
    verdict, record = control.record()
    assert verdict == "failed"
    assert [step.step for step in record.steps][-2:] == ["deployment failed", "failed"]


def test_Z03_without_a_record_a_deployment_goes_on(control: Control) -> None:
    serving(control)
    control.update("next", CANARY)
    with control.store.write() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "endpoint", "e")
        assert found is not None
        for record in tx.resources.children(found.arn, "deployment"):
            tx.resources.delete(record.uid)
    run(control, 140)
    assert control.describe()["EndpointConfigName"] == "next"


def test_D07_other_numbers_are_not_counted_as_a_deployment(control: Control) -> None:
    told: list[str] = []
    control.reconciler._tell = lambda endpoint, verdict: told.append(verdict)
    serving(control, count=1)
    numbers = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    control.call("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=numbers)
    run(control, 5)
    assert control.describe()["EndpointStatus"] == "InService"
    assert told == ["succeeded"], "the creation alone"


def test_H10_instances_go_round_the_zones_and_stay_in_theirs(control: Control) -> None:
    control.reconciler._zones = 3
    control.config("five", {"InitialInstanceCount": 5})
    control.endpoint(config="five")
    control.settle(5)
    assert zones(control) == [f"{REGION}{letter}" for letter in "abcab"]
    (dead, *_) = control.routing.targets("e")
    control.driver.end(dead, CRASHED)
    control.settle(4)
    assert zones(control) == [f"{REGION}{letter}" for letter in "abcab"]


def zones(control: Control) -> list[str]:
    with control.store.read() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "endpoint", "e")
        assert found is not None
        specs = [tx.instances.spec(row.id) for row in tx.instances.of(found.uid)]
    return [spec.zone for spec in specs if spec is not None]


def test_H10_a_crash_loop_is_shown_as_such(control: Control) -> None:
    control.driver._now = lambda: control.clock.now().timestamp()
    control.endpoint()
    control.settle(5, step_s=1.0)
    for _ in range(4):
        for id_ in control.held:
            control.driver.end(id_, Failure("OutOfMemory", "It used too much memory."))
        control.settle(12, step_s=1.0)
    assert control.steps().count("crash loop") == 1
    assert "4 times in a row" in state(control).troubles["AllTraffic"]
    control.settle(20, step_s=10.0)
    assert state(control).troubles == {}
    assert control.describe()["EndpointStatus"] == "InService"


def state(control: Control) -> EndpointState:
    with control.store.read() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "endpoint", "e")
        assert found is not None
        return found.state_as(EndpointState)
