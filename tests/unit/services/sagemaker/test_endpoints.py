"""Endpoints: what each operation accepts in which status. Their life is told in `unit/reconcilers`."""

import pytest

from clary.domain.faults import Fault
from control.harness import Control

ARN = "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/e"
UPDATES: tuple[tuple[str, dict[str, object]], ...] = (
    ("UpdateEndpoint", {"EndpointConfigName": "c"}),
    ("UpdateEndpointWeightsAndCapacities", {"DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic"}]}),
    ("DeleteEndpoint", {}),
)


@pytest.fixture
def control(control: Control) -> Control:
    control.model()
    control.config()
    return control


@pytest.mark.parametrize(("operation", "params"), UPDATES)
def test_H01_an_absent_endpoint_is_not_found(
    control: Control, operation: str, params: dict[str, object]
) -> None:
    with pytest.raises(Fault) as refused:
        control.call(operation, EndpointName="e", **params)
    assert refused.value.message == f'Could not find endpoint "{ARN}".'


@pytest.mark.parametrize("status", ["Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"])
@pytest.mark.parametrize(("operation", "params"), UPDATES)
def test_H01_an_endpoint_in_progress_takes_no_change(
    control: Control, operation: str, params: dict[str, object], status: str
) -> None:
    control.endpoint()
    with control.store.write() as tx:
        found = tx.resources.find(control.account, control.region, "endpoint", "e")
        assert found is not None
        tx.resources.update(found, status=status)
    with pytest.raises(Fault) as refused:
        control.call(operation, EndpointName="e", **params)
    assert refused.value.message == f'Cannot update in-progress endpoint "{ARN}".'


def test_H08_more_instances_than_an_endpoint_may_have_are_refused(control: Control) -> None:
    control.config("many", {"InitialInstanceCount": 2**31 - 1})
    with pytest.raises(Fault) as refused:
        control.endpoint("other", config="many")
    assert refused.value.code == "ResourceLimitExceeded"
    assert refused.value.message.startswith(
        "The account-level service limit 'ml.m5.large for endpoint usage' is 100 Instances, with current utilization "
        "of 0 Instances and a request delta of 2147483647 Instances."
    )
    control.endpoint()
    control.settle(5)
    numbers = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 101}]
    for operation, params in (
        ("UpdateEndpoint", {"EndpointConfigName": "many"}),
        ("UpdateEndpointWeightsAndCapacities", {"DesiredWeightsAndCapacities": numbers}),
    ):
        with pytest.raises(Fault, match="with current utilization of 1 Instances and a request delta of"):
            control.call(operation, EndpointName="e", **params)
    assert control.call("DescribeEndpoint", EndpointName="e")["EndpointStatus"] == "InService"


def test_H01_a_refused_creation_leaves_no_trace(control: Control) -> None:
    with pytest.raises(Fault):
        control.endpoint("e", config="absent")
    with control.store.read() as tx:
        assert tx.resources.find(control.account, control.region, "endpoint", "e") is None
        assert tx.work.next_due() is None


def test_H01_all_at_once_may_be_said(control: Control) -> None:
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    config = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    control.call("CreateEndpoint", EndpointName="e", EndpointConfigName="c", DeploymentConfig=config)


def test_H09_numbers_that_cannot_be_are_refused(control: Control) -> None:
    control.endpoint()
    control.settle(5)
    for numbers, words in (
        ({"VariantName": "absent"}, "absent does not exist"),
        ({"VariantName": "AllTraffic", "DesiredInstanceCount": 0}, "DesiredInstanceCount 0 is not supported"),
    ):
        with pytest.raises(Fault, match=words):
            control.call(
                "UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=[numbers]
            )
    assert control.describe()["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("excluded", "numbers"),
    [([], (3, 0.5)), (["DesiredWeight"], (3, 1.0)), (["DesiredInstanceCount"], (1, 0.5))],
)
def test_H11_an_update_may_keep_the_numbers_in_force(
    control: Control, excluded: list[str], numbers: tuple[int, float]
) -> None:
    control.endpoint()
    control.settle(5)
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 3, "DesiredWeight": 0.5}]
    control.call("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=wanted)
    control.settle(6)
    control.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="c",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": name} for name in excluded],
    )
    control.settle(8)
    (shown,) = control.describe()["ProductionVariants"]
    assert (shown["CurrentInstanceCount"], shown["CurrentWeight"]) == numbers


def test_H01_endpoints_of_other_accounts_and_regions_are_not_seen(control: Control) -> None:
    control.endpoint()
    control.region = "us-west-2"
    with pytest.raises(Fault, match="us-west-2"):
        control.describe()
    assert control.call("ListEndpoints") == {"Endpoints": []}
    control.region, control.account = "eu-central-1", "000000000000"
    with pytest.raises(Fault, match="000000000000"):
        control.describe()
