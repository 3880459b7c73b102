"""The endpoint reconciler against a driver and gateways in memory: what the world looks like afterwards."""

from datetime import timedelta

import pytest

from clary.domain.faults import Fault
from clary.domain.instances import InstanceId
from clary.drivers.fake import Plan
from clary.reconcilers import reset
from control.harness import CRASHED, Control


def in_service(control: Control) -> list[InstanceId]:
    control.endpoint()
    control.settle(5)
    assert control.describe()["EndpointStatus"] == "InService"
    return control.routing.targets("e")


def test_H01_an_endpoint_comes_up_step_by_step(control: Control) -> None:
    control.endpoint()
    assert control.describe()["EndpointStatus"] == "Creating"
    assert "ProductionVariants" not in control.describe()
    assert control.routing.routes == {}
    control.settle(5)
    shown = control.describe()
    assert shown["EndpointStatus"] == "InService"
    assert "PendingDeploymentSummary" not in shown
    (variant,) = shown["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (1, 1.0)
    assert variant["DeployedImages"][0]["ResolvedImage"].startswith("clary/fake:1@sha256:")
    assert set(control.routing.targets("e")) == set(control.held)
    assert [step for step in control.steps() if not step.startswith("instance")] == [
        "creation asked for",
        "in service",
    ]


def test_H01_it_is_not_in_service_while_a_gateway_lacks_the_route(control: Control) -> None:
    control.endpoint()

    def refuse(route: object) -> None:
        raise ConnectionError("a gateway did not apply the route")

    publish = control.routing.publish
    control.routing.publish = refuse  # type: ignore[method-assign]
    control.settle(6)
    assert control.describe()["EndpointStatus"] == "Creating"
    assert "step failed" in control.steps()
    control.routing.publish = publish  # type: ignore[method-assign]
    control.settle(20)
    assert control.describe()["EndpointStatus"] == "InService"


def test_H01_a_deletion_waits_for_requests_under_way(control: Control) -> None:
    (id_,) = in_service(control)
    control.routing.busy = {id_}
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(4)
    assert control.routing.routes == {}
    assert control.held[id_].phase == "ready"
    assert control.describe()["EndpointStatus"] == "Deleting"
    control.routing.busy = set()
    control.settle(4)
    assert control.held == {}
    with pytest.raises(Fault, match="Could not find endpoint"):
        control.describe()


def test_H01_a_deletion_waits_no_longer_than_a_request_may_take(control: Control) -> None:
    (id_,) = in_service(control)
    control.routing.busy = {id_}
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(10, step_s=10.0)
    assert control.held == {}


def test_H01_an_endpoint_whose_instances_never_end_is_not_deleted(control: Control) -> None:
    control.plan(Plan(stays_when_stopped=True))
    (id_,) = in_service(control)
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(4)
    assert control.describe()["EndpointStatus"] == "Deleting"
    control.driver.end(id_)
    control.settle(3)
    assert control.held == {}


def test_Z01_a_creation_that_fails_says_why_and_leaves_nothing(control: Control) -> None:
    control.plan(Plan(until="starting", failure=CRASHED))
    control.endpoint()
    control.settle(6)
    shown = control.describe()
    assert shown["EndpointStatus"] == "Failed"
    assert shown["FailureReason"] == (
        "The primary container for production variant AllTraffic did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint.\n"
        "It ended by itself. Exit code 3.\n"
        "Last log lines: bad model\n"
        "Run: clary why e"
    )
    assert control.held == {}
    assert control.routing.routes == {}
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(2)
    control.plan(Plan())
    in_service(control)


def test_H01_a_dead_instance_is_replaced_and_the_endpoint_stays_in_service(control: Control) -> None:
    (dead,) = in_service(control)
    control.driver.end(dead, CRASHED)
    control.runner.sweep()
    control.runner.run_pending()
    assert control.routing.targets("e") == []  # routed without it before anything else is up
    assert control.describe()["EndpointStatus"] == "InService"
    control.settle(5)
    (alive,) = control.routing.targets("e")
    assert alive != dead
    assert set(control.held) == {alive}


def test_H01_an_unhealthy_instance_is_replaced(control: Control) -> None:
    (ill,) = in_service(control)
    control.driver.become(ill, "unhealthy")
    control.settle(6)
    assert ill not in control.held
    assert len(control.routing.targets("e")) == 1


def test_Z02_after_a_stop_everything_comes_back_as_it_was(control: Control) -> None:
    (before,) = in_service(control)
    control.driver.lose(before)
    control.routing.routes.clear()
    again = control.restarted()
    assert again.describe()["EndpointStatus"] == "InService"
    again.settle(5)
    assert len(again.routing.targets("e")) == 1
    again.close()


def test_H01_nothing_is_changed_while_nobody_can_tell(control: Control) -> None:
    targets = in_service(control)
    control.driver.unreachable = True
    with control.store.write() as tx:
        tx.work.wish_all("endpoint")
    control.runner.run_pending()
    assert control.routing.targets("e") == targets
    control.driver.unreachable = False
    control.settle(4)
    assert control.routing.targets("e") == targets


def test_H01_instances_that_nobody_wants_are_removed(control: Control) -> None:
    (id_,) = in_service(control)
    with control.store.write() as tx:
        tx.instances.delete([id_])
    control.runner.sweep()
    assert control.held == {}


def test_H11_an_update_moves_all_traffic_to_the_new_fleet(control: Control) -> None:
    old = in_service(control)
    control.config("d", {"VariantName": "A", "InitialInstanceCount": 2}, {"VariantName": "B"})
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    control.runner.run_pending()
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("Updating", "c")
    assert shown["PendingDeploymentSummary"]["EndpointConfigName"] == "d"
    assert control.routing.targets("e") == old
    control.settle(6)
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "d")
    assert [v["VariantName"] for v in shown["ProductionVariants"]] == ["A", "B"]
    assert set(control.held) == set(control.routing.targets("e"))
    assert not set(old) & set(control.held)


def test_H11_an_update_that_fails_keeps_the_old_fleet(control: Control) -> None:
    old = in_service(control)
    control.config("d")
    control.plan(Plan(until="starting", failure=CRASHED))
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    control.settle(6)
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c")
    assert "did not pass the ping health check" in shown["FailureReason"]
    assert control.routing.targets("e") == old == list(control.held)
    assert "rolled back" in control.steps()


def test_H09_new_numbers_are_live_without_a_new_fleet(control: Control) -> None:
    old = in_service(control)
    numbers = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2, "DesiredWeight": 0.25}]
    control.call("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=numbers)
    (variant,) = control.describe()["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 2)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 0.25)
    assert "PendingDeploymentSummary" not in control.describe()
    control.settle(6)
    (variant,) = control.describe()["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (2, 0.25)
    assert set(old) < set(control.routing.targets("e"))


def test_H01_a_deletion_during_the_work_wins(control: Control) -> None:
    """The reconciler's write is refused when the resource changed since it was read; it decides anew."""
    in_service(control)
    (id_,) = control.held
    control.driver.end(id_)

    publish = control.routing.publish

    def publish_and_delete(route: object) -> None:
        control.routing.publish = publish  # type: ignore[method-assign]
        control.call("DeleteEndpoint", EndpointName="e")

    control.routing.publish = publish_and_delete  # type: ignore[method-assign]
    control.settle(6)
    assert control.held == {}
    with pytest.raises(Fault):
        control.describe()


def test_reset_empties_everything(control: Control) -> None:
    in_service(control)
    reset.empty(control.runner, control.store, control.driver, control.routing)
    assert control.held == {}
    assert control.routing.routes == {}
    with control.store.read() as tx:
        assert tx.resources.counts() == {}
    control.model()
    control.config()
    in_service(control)


def test_a_failing_key_backs_off_and_recovers(control: Control) -> None:
    control.endpoint()
    control.driver.unreachable = True
    counts = []
    for _ in range(8):
        with control.store.read() as tx:
            due = tx.work.next_due()
        assert due is not None
        control.clock.advance(max(0.0, (due - control.clock.now()) / timedelta(seconds=1)))
        before = control.clock.now()
        assert control.runner.run_pending() == 1
        with control.store.read() as tx:
            due = tx.work.next_due()
        assert due is not None
        counts.append((due - before).total_seconds())
    assert counts == sorted(counts)
    assert counts[-1] >= 16.0
    control.driver.unreachable = False
    control.settle(20)
    assert control.describe()["EndpointStatus"] == "InService"
