"""UpdateEndpoint: what it accepts, what it writes down, and what Describe makes of a deployment under way."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from clary.domain.alarms import AlarmSpec
from clary.domain.deployments import DEPLOYMENT_KIND, Deployment, DeploymentRecord, DeploymentRequest
from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.domain.faults import Fault, access_denied
from clary.domain.scaling import SCALABLE_TARGET_KIND
from clary.reconcilers.deployment_records import KEPT_FOR, forget_old
from clary.services import sagemaker
from clary.services.sagemaker.deployment_records import KEPT
from clary.services.sagemaker.endpoint_views import settles_soon
from clary.services.sagemaker.endpoints import Endpoints
from clary.store import Resource
from clary.store.alarms import put_alarm
from clary.wire.operations import Call
from control.harness import Control, OneImage, variant

CANARY = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "WaitIntervalInSeconds": 60,
        },
        "TerminationWaitInSeconds": 30,
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "Errors"}]},
}
LINEAR = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "LINEAR",
            "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            "WaitIntervalInSeconds": 10,
        }
    }
}


@pytest.fixture
def control(control: Control) -> Control:
    """An endpoint of two instances, in service; nothing is reconciled from here on unless a test says so."""
    control.model()
    control.config("c", {"InitialInstanceCount": 2})
    control.config("c2", {"InitialInstanceCount": 2, "InstanceType": "ml.m5.xlarge"})
    control.endpoint()
    control.settle(6)
    assert control.describe()["EndpointStatus"] == "InService"
    return control


def alarm(control: Control, name: str) -> None:
    with control.store.write() as tx:
        put_alarm(tx, control.ids(), control.account, control.region, AlarmSpec(name), control.clock.now())


def update(control: Control, config: str = "c2", **params: Any) -> None:
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName=config, **params)


def row(control: Control) -> Resource:
    with control.store.read() as tx:
        found = tx.resources.find(control.account, control.region, "endpoint", "e")
    assert found is not None
    return found


def records(control: Control) -> list[Resource]:
    with control.store.read() as tx:
        return tx.resources.children(row(control).arn, DEPLOYMENT_KIND)


def shift(control: Control, stage: Any, activated: Mapping[str, int], **members: Any) -> None:
    """Puts the deployment under way into a stage, as its reconciler would."""
    endpoint = row(control)
    spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
    deployment = Deployment(
        id=spec.deployment_id,
        started_at=spec.deployment_started_at,
        stage=stage,
        stage_since=control.clock.now(),
        activated=dict(activated),
        **members,
    )
    with control.store.write() as tx:
        tx.resources.update(endpoint, state=replace(state, deployment=deployment))


def scale(control: Control) -> str:
    """Registers the variant as a scalable target; its uid."""
    with control.store.write() as tx:
        return tx.resources.insert(
            uid=control.ids(),
            account=control.account,
            region=control.region,
            kind=SCALABLE_TARGET_KIND,
            arn="arn",
            name="endpoint/e/variant/AllTraffic",
            status="",
            spec={},
        ).uid


def test_D01_Z03_an_update_writes_its_policy_and_a_record_in_one_go(control: Control) -> None:
    alarm(control, "Errors")
    before = row(control).state_as(EndpointState).fleet
    update(control, DeploymentConfig=CANARY)
    spec = row(control).spec_as(EndpointSpec)
    assert (spec.policy.strategy, spec.policy.wait_s, spec.policy.alarms) == ("CANARY", 60.0, ("Errors",))
    newest, oldest = records(control)
    request, state = newest.spec_as(DeploymentRequest), newest.state_as(DeploymentRecord)
    assert (newest.uid, newest.status, state.verdict) == (spec.deployment_id, "in-progress", "in-progress")
    assert request.requested_by.endswith("assumed-role/SageMakerExecutionRole/clary")
    assert (request.operation, request.from_config, request.to_config) == ("UpdateEndpoint", "c", "c2")
    assert request.changes == ("AllTraffic.instance_type: ml.m5.large → ml.m5.xlarge",)
    assert request.policy == spec.policy
    assert oldest.spec_as(DeploymentRequest).operation == "CreateEndpoint"
    assert row(control).state_as(EndpointState).fleet == before


def test_D01_a_refused_update_leaves_no_trace(control: Control) -> None:
    endpoint = row(control)
    for params in (
        {"DeploymentConfig": CANARY},  # its alarm is not there
        {"DeploymentConfig": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "CANARY"}}}},
        {"DeploymentConfig": LINEAR, "RetainDeploymentConfig": True},
    ):
        with pytest.raises(Fault) as refused:
            update(control, **params)
        assert refused.value.code == "ValidationException"
    with pytest.raises(Fault, match="Could not find endpoint configuration"):
        update(control, "absent", DeploymentConfig=LINEAR)
    assert row(control) == endpoint
    assert len(records(control)) == 1


def test_D05_alarms_are_found_by_their_exact_names(control: Control) -> None:
    alarm(control, "errors")
    with pytest.raises(Fault, match="do not exist in eu-central-1: Errors"):
        update(control, DeploymentConfig=CANARY)
    control.region = "us-west-2"
    alarm(control, "Errors")
    control.region = "eu-central-1"
    with pytest.raises(Fault, match="do not exist"):
        update(control, DeploymentConfig=CANARY)


def test_H14_one_update_at_a_time(control: Control) -> None:
    update(control)
    with pytest.raises(Fault, match="Cannot update in-progress endpoint"):
        update(control)


def test_H14_an_update_to_the_same_configuration_is_a_new_fleet(control: Control) -> None:
    before = row(control).spec_as(EndpointSpec).fleet
    update(control, "c")
    after = row(control).spec_as(EndpointSpec).fleet
    assert after.id != before.id
    assert records(control)[0].spec_as(DeploymentRequest).changes[0].startswith("nothing is different")


def test_D01_the_last_policy_may_be_used_again(control: Control) -> None:
    update(control, DeploymentConfig=LINEAR)
    control.settle(12)
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["LastDeploymentConfig"]) == ("InService", LINEAR)
    update(control, "c")  # all at once: nothing was asked for
    assert row(control).spec_as(EndpointSpec).policy.strategy == "ALL_AT_ONCE"
    control.settle(12)
    update(control, RetainDeploymentConfig=True)
    assert row(control).spec_as(EndpointSpec).policy.strategy == "LINEAR"


def test_D01_a_policy_given_at_creation_is_only_kept(control: Control) -> None:
    control.call("CreateEndpoint", EndpointName="f", EndpointConfigName="c", DeploymentConfig=LINEAR)
    control.settle(6)
    assert "LastDeploymentConfig" not in control.describe("f")
    control.call("UpdateEndpoint", EndpointName="f", EndpointConfigName="c", RetainDeploymentConfig=True)
    assert control.describe("f")["LastDeploymentConfig"] == LINEAR
    with pytest.raises(Fault, match="LinearStepSize must be specified"):
        control.call(
            "CreateEndpoint",
            EndpointName="g",
            EndpointConfigName="c",
            DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "LINEAR"}}},
        )


def test_D01_retaining_where_nothing_was_kept_means_all_at_once(control: Control) -> None:
    update(control, RetainDeploymentConfig=True)
    assert row(control).spec_as(EndpointSpec).policy.strategy == "ALL_AT_ONCE"


def test_H14_a_scaled_variant_keeps_its_place_and_its_type(control: Control) -> None:
    control.config("other", {"VariantName": "Other"})
    control.config("more", {"InitialInstanceCount": 5})
    scale(control)
    for config in ("c2", "other"):
        with pytest.raises(Fault) as refused:
            update(control, config)
        assert refused.value.message == (
            'The variant(s) "[AllTraffic]" must be deregistered as scalable targets with AWS Auto Scaling before they '
            "can be removed or have their instance type updated."
        )
    update(control, "more")


def test_H13_scaled_variants_go_only_with_the_right_to_deregister_them(control: Control) -> None:
    asked: list[tuple[str, str, object]] = []

    def refuse(call: Call, params: Mapping[str, Any]) -> None:
        asked.append((call.service, call.operation, params["ResourceId"]))
        raise access_denied("no")

    (endpoints,) = (
        thing
        for thing in sagemaker.resources(
            control.store, control.clock, control.ids, OneImage(), control.objects, authorize=refuse
        )
        if isinstance(thing, Endpoints)
    )
    call = control.call_of("sagemaker", "DeleteEndpoint")
    target = scale(control)
    with pytest.raises(
        Fault, match="does not have application-autoscaling:DeregisterScalableTarget permission"
    ):
        endpoints.delete_endpoint(call, {"EndpointName": "e"})
    assert asked == [("application-autoscaling", "DeregisterScalableTarget", "endpoint/e/variant/AllTraffic")]
    assert control.describe()["EndpointStatus"] == "InService"
    control.call("DeleteEndpoint", EndpointName="e")
    with control.store.read() as tx:
        assert tx.resources.get(target) is None


def test_Z03_the_newest_records_are_kept(control: Control) -> None:
    for _ in range(KEPT + 3):
        control.clock.advance(1.0)
        with control.store.write() as tx:
            tx.resources.update(row(control), status="InService")
        update(control)
    kept = records(control)
    assert len(kept) == KEPT
    assert [record.status for record in kept] == ["in-progress"] + ["superseded"] * (KEPT - 1)
    assert kept[0].uid == row(control).spec_as(EndpointSpec).deployment_id


def test_Z03_records_outlive_the_endpoint(control: Control) -> None:
    arn = row(control).arn
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(6)
    with control.store.read() as tx:
        assert tx.resources.find(control.account, control.region, "endpoint", "e") is None
        assert len(tx.resources.children(arn, DEPLOYMENT_KIND)) == 1
    control.endpoint()
    assert len(records(control)) == 2


def test_Z03_records_of_endpoints_that_are_gone_are_forgotten_in_the_end(control: Control) -> None:
    control.endpoint("gone")
    control.settle(6)
    control.call("DeleteEndpoint", EndpointName="gone")
    control.settle(6)
    control.clock.advance(KEPT_FOR.total_seconds() - 3600)
    assert forget_old(control.store, control.clock.now()) == 0
    control.clock.advance(7200)
    assert forget_old(control.store, control.clock.now()) == 1
    with control.store.read() as tx:
        assert [record.name.partition("/")[0] for record in tx.resources.all(DEPLOYMENT_KIND)] == ["e"]


def test_D03_describe_shows_the_stages_of_a_deployment(control: Control) -> None:
    alarm(control, "Errors")
    update(control, DeploymentConfig=CANARY)
    (green,) = control.describe()["PendingDeploymentSummary"]["ProductionVariants"]
    assert [status["Status"] for status in green["VariantStatus"]] == ["Creating"]
    assert (green["CurrentWeight"], green["CurrentInstanceCount"], green["InstanceType"]) == (
        0.0,
        0,
        "ml.m5.xlarge",
    )
    for stage, activated, status, message in (
        ("activating", 1, "ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s)."),
        (
            "baking",
            1,
            "Baking",
            "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s).",
        ),
        (
            "terminating",
            2,
            "Baking",
            "Baking for 30 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 2 instance(s).",
        ),
    ):
        shift(control, stage, {"AllTraffic": activated})
        shown = control.describe()
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("Updating", "c")
        assert shown["LastDeploymentConfig"] == CANARY
        assert shown["PendingDeploymentSummary"]["EndpointConfigName"] == "c2"
        (green,) = shown["PendingDeploymentSummary"]["ProductionVariants"]
        assert green["VariantStatus"] == [
            {"Status": status, "StatusMessage": message, "StartTime": control.clock.now()}
        ]
        assert green["CurrentWeight"] == activated / 2
        assert "VariantStatus" not in shown["ProductionVariants"][0]
    control.clock.advance(30.0)
    (blue,) = control.describe()["ProductionVariants"]
    assert blue["VariantStatus"] == [{"Status": "Deleting", "StartTime": control.clock.now()}]


def test_D05_describe_shows_a_rollback(control: Control) -> None:
    update(control, DeploymentConfig=LINEAR)
    shift(control, "rolling-back", {}, reason="it was bad")
    with control.store.write() as tx:
        tx.resources.update(row(control), status="RollingBack")
    shown = control.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("RollingBack", "c")
    assert shown["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "ActivatingTraffic"
    (green,) = shown["PendingDeploymentSummary"]["ProductionVariants"]
    assert green["VariantStatus"][0]["Status"] == "Deleting"


def test_D01_describe_shows_what_a_rolling_update_still_has_of_the_old_fleet(control: Control) -> None:
    batch = {"MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 5}
    update(control, DeploymentConfig={"RollingUpdatePolicy": batch})
    shift(control, "baking", {"AllTraffic": 1}, retained={"AllTraffic": 1})
    shown = control.describe()
    (blue,) = shown["ProductionVariants"]
    assert (blue["CurrentInstanceCount"], blue["VariantStatus"][0]["Status"]) == (1, "Deleting")
    (green,) = shown["PendingDeploymentSummary"]["ProductionVariants"]
    assert "batch capacity of 1 instance(s)" in green["VariantStatus"][0]["StatusMessage"]


def test_H13_changed_numbers_are_no_deployment(control: Control) -> None:
    update(control, DeploymentConfig=LINEAR)
    control.settle(12)
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}]
    control.call("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=wanted)
    spec, shown = row(control).spec_as(EndpointSpec), control.describe()
    assert (spec.deployment_id, spec.policy.strategy) == ("", "ALL_AT_ONCE")
    assert spec.deployment_config == shown["LastDeploymentConfig"] == LINEAR
    assert "PendingDeploymentSummary" not in shown
    (only,) = shown["ProductionVariants"]
    assert (only["CurrentInstanceCount"], only["DesiredInstanceCount"]) == (2, 3)
    assert only["VariantStatus"][0]["Status"] == "Updating"
    assert len(records(control)) == 2


def test_D01_a_describe_is_never_held_while_a_deployment_waits(control: Control) -> None:
    update(control, DeploymentConfig=LINEAR)
    shift(control, "baking", {"AllTraffic": 1})
    assert not settles_soon(row(control), control.clock.now())
    with control.store.write() as tx:
        tx.resources.update(row(control), status="InService")
    update(control)
    assert settles_soon(row(control), control.clock.now())
    assert not settles_soon(row(control), control.clock.now() + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([{"VariantName": "AllTraffic", "DesiredWeight": 0.0}], "weight above 0"),
        ([{"VariantName": "AllTraffic"}, {"VariantName": "AllTraffic"}], "must be unique"),
        (
            [{"VariantName": "alltraffic"}],
            "alltraffic does not exist in the endpoint; its variants are AllTraffic",
        ),
        (
            [{"VariantName": "AllTraffic", "ServerlessUpdateConfig": {}}],
            "ServerlessUpdateConfig is not supported",
        ),
    ],
)
def test_H13_numbers_that_cannot_be_are_refused(
    control: Control, wanted: list[dict[str, object]], words: str
) -> None:
    with pytest.raises(Fault, match=words):
        control.call(
            "UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=wanted
        )


def test_D01_a_mixed_endpoint_takes_an_update_and_no_numbers(control: Control) -> None:
    with control.store.write() as tx:
        tx.resources.update(row(control), status="UpdateRollbackFailed")
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}]
    with pytest.raises(Fault, match="Repair it with UpdateEndpoint"):
        control.call(
            "UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=wanted
        )
    update(control)
    assert control.describe()["EndpointStatus"] == "Updating"


def test_D08_a_shadow_has_its_own_numbers(control: Control) -> None:
    shadow = variant(VariantName="Shadow", InitialVariantWeight=0.5)
    control.call(
        "CreateEndpointConfig",
        EndpointConfigName="s",
        ProductionVariants=[variant()],
        ShadowProductionVariants=[shadow],
    )
    control.call("CreateEndpoint", EndpointName="shadowed", EndpointConfigName="s")
    pending = control.describe("shadowed")["PendingDeploymentSummary"]
    assert [v["VariantName"] for v in pending["ShadowProductionVariants"]] == ["Shadow"]
    control.settle(6)
    shown = control.describe("shadowed")
    assert [v["VariantName"] for v in shown["ProductionVariants"]] == ["AllTraffic"]
    assert [(v["VariantName"], v["CurrentWeight"]) for v in shown["ShadowProductionVariants"]] == [
        ("Shadow", 0.5)
    ]
    wanted = [{"VariantName": "Shadow", "DesiredWeight": 1.0, "DesiredInstanceCount": 2}]
    control.call(
        "UpdateEndpointWeightsAndCapacities", EndpointName="shadowed", DesiredWeightsAndCapacities=wanted
    )
    control.settle(8)
    (now,) = control.describe("shadowed")["ShadowProductionVariants"]
    assert (now["CurrentWeight"], now["CurrentInstanceCount"]) == (1.0, 2)
