"""The thirteen operations: what they keep, show and refuse. Policies that could never act are refused when written."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clary.domain.faults import Fault
from control.harness import ACCOUNT, REGION
from control.scaling_world import DIMENSION, RESOURCE, ScalingWorld

_AUTOSCALING = "application-autoscaling"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScalingWorld]:
    world = ScalingWorld(tmp_path_factory.mktemp("world"))
    yield world
    world.close()


@pytest.fixture
def world(shared: ScalingWorld) -> Iterator[ScalingWorld]:
    """An endpoint with a registered variant."""
    shared.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    yield shared
    if targets(shared):
        shared.scaling_call("DeregisterScalableTarget")


def targets(world: ScalingWorld, **params: Any) -> list[Any]:
    found = world.call(_AUTOSCALING, "DescribeScalableTargets", ServiceNamespace="sagemaker", **params)
    return list(found["ScalableTargets"])


def policies(world: ScalingWorld, **params: Any) -> list[Any]:
    found = world.call(_AUTOSCALING, "DescribeScalingPolicies", ServiceNamespace="sagemaker", **params)
    return list(found["ScalingPolicies"])


def planned(world: ScalingWorld, **params: Any) -> list[Any]:
    found = world.call(_AUTOSCALING, "DescribeScheduledActions", ServiceNamespace="sagemaker", **params)
    return list(found["ScheduledActions"])


def alarms(world: ScalingWorld) -> list[str]:
    return sorted(each["AlarmName"] for each in world.call("cloudwatch", "DescribeAlarms")["MetricAlarms"])


def customized(metric: str = "CPUUtilization", **members: Any) -> dict[str, Any]:
    return {
        "CustomizedMetricSpecification": {
            "Namespace": "/aws/sagemaker/Endpoints",
            "MetricName": metric,
            "Dimensions": [
                {"Name": "EndpointName", "Value": "e"},
                {"Name": "VariantName", "Value": "AllTraffic"},
            ],
            "Statistic": "Average",
        }
        | members
    }


def test_K05_a_target_is_registered_changed_shown_and_deregistered(world: ScalingWorld) -> None:
    (shown,) = targets(world, ResourceIds=[RESOURCE], ScalableDimension=DIMENSION)
    assert (shown["MinCapacity"], shown["MaxCapacity"]) == (1, 4)
    assert shown["RoleARN"].endswith("/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")
    assert shown["SuspendedState"] == {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    again = world.scaling_call(
        "RegisterScalableTarget", MaxCapacity=9, SuspendedState={"ScheduledScalingSuspended": True}
    )
    assert again["ScalableTargetARN"] == shown["ScalableTargetARN"]
    (changed,) = targets(world)
    assert (changed["MinCapacity"], changed["MaxCapacity"]) == (1, 9)
    assert changed["SuspendedState"]["ScheduledScalingSuspended"]
    world.scaling_call("DeregisterScalableTarget")
    assert targets(world) == []
    assert world.refusal("DeregisterScalableTarget") == (
        "ObjectNotFoundException: No scalable target found for service namespace: sagemaker, "
        f"resource ID: {RESOURCE}, scalable dimension: {DIMENSION}"
    )


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"MinCapacity": 5, "MaxCapacity": 4}, "Maximum capacity cannot be less than minimum capacity"),
        ({"MinCapacity": 9}, "Maximum capacity cannot be less than minimum capacity"),
        ({"MinCapacity": -1}, "negative"),
        ({"MinCapacity": 0}, "not supported"),
        ({"ResourceId": "endpoint/nope/variant/v"}, "endpoint doesn't exist"),
        ({"ResourceId": "endpoint/e/variant/v"}, "variant doesn't exist"),
        ({"ResourceId": "service/e"}, "Unsupported service namespace"),
        ({"ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}, "not supported"),
        ({"ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}, "not supported"),
        ({"ScalableDimension": "ecs:service:DesiredCount"}, "Unsupported"),
        ({"ServiceNamespace": "ecs"}, "not supported"),
    ],
)
def test_K05_targets_that_cannot_be_are_refused(
    world: ScalingWorld, params: dict[str, Any], reason: str
) -> None:
    refusal = world.refusal("RegisterScalableTarget", **params)
    assert refusal.startswith("ValidationException") and reason in refusal


def test_K05_both_limits_are_needed_at_first(world: ScalingWorld) -> None:
    world.scaling_call("DeregisterScalableTarget")
    assert "MinCapacity and MaxCapacity are required" in world.refusal(
        "RegisterScalableTarget", MinCapacity=1
    )
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=2)


def test_K01_a_target_tracking_policy_has_two_alarms_as_long_as_it_is_there(world: ScalingWorld) -> None:
    put = world.track(30.0, ScaleInCooldown=5)
    assert put["PolicyARN"].startswith(f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:")
    names = [alarm["AlarmName"] for alarm in put["Alarms"]]
    prefix = f"TargetTracking-{RESOURCE}-Alarm"
    assert names[0].startswith(f"{prefix}High-") and names[1].startswith(f"{prefix}Low-")
    assert alarms(world) == sorted(names)
    (shown,) = policies(world, ResourceId=RESOURCE, PolicyNames=["tt"])
    assert shown["PolicyARN"] == put["PolicyARN"] and shown["Alarms"] == put["Alarms"]
    assert shown["PolicyType"] == "TargetTrackingScaling"
    assert shown["TargetTrackingScalingPolicyConfiguration"]["ScaleInCooldown"] == 5
    again = world.track(60.0)
    assert again == put, "the same policy with another target"
    high = world.call("cloudwatch", "DescribeAlarms", AlarmNames=[names[0]])["MetricAlarms"][0]
    assert (high["Period"], high["EvaluationPeriods"], high["Threshold"]) == (10, 1, 10.0)
    assert high["AlarmActions"] == [put["PolicyARN"]]
    low = world.call("cloudwatch", "DescribeAlarms", AlarmNames=[names[1]])["MetricAlarms"][0]
    assert (low["Period"], low["EvaluationPeriods"], low["Threshold"]) == (60, 15, 54.0)
    world.scaling_call("DeleteScalingPolicy", PolicyName="tt")
    assert policies(world) == [] and alarms(world) == []
    assert world.refusal("DeleteScalingPolicy", PolicyName="tt").endswith("policy name: tt")


def test_K01_awss_timing_shows_in_the_alarms(tmp_path: Path) -> None:
    world = ScalingWorld(tmp_path, timing="aws")
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    high = world.track(30.0)["Alarms"][0]["AlarmName"]
    shown = world.call("cloudwatch", "DescribeAlarms", AlarmNames=[high])["MetricAlarms"][0]
    assert (shown["Period"], shown["EvaluationPeriods"], shown["Threshold"]) == (60, 3, 30.0)
    world.close()


def test_K05_deregistering_takes_policies_alarms_and_schedules_along(world: ScalingWorld) -> None:
    world.track(30.0)
    plan(world)
    world.scaling_call("DeregisterScalableTarget")
    assert (policies(world), planned(world), alarms(world)) == ([], [], [])


def test_K05_a_policy_needs_a_target(world: ScalingWorld) -> None:
    world.scaling_call("DeregisterScalableTarget")
    with pytest.raises(Fault, match="No scalable target registered for service namespace: sagemaker"):
        world.track(30.0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"TargetValue": 0.0}, "positive"),
        ({"TargetValue": float("nan")}, "positive"),
        ({"ScaleInCooldown": -1}, "ScaleInCooldown"),
        (customized("Temperature"), "there is no metric Temperature"),
        (customized(Dimensions=[]), "EndpointName and VariantName together"),
        (
            customized(
                Dimensions=[
                    {"Name": "EndpointName", "Value": "e"},
                    {"Name": "VariantName", "Value": "Nope"},
                ]
            ),
            "e has no variant Nope; it has AllTraffic",
        ),
        (customized(Namespace="AWS/EC2"), "no metrics in the namespace AWS/EC2"),
        (customized(Unit="Count"), "unit Percent"),
        (customized() | {"TargetValue": 200.0}, "never exceeds 200"),
        (customized("MemoryUtilization") | {"TargetValue": 100.0}, "never exceeds 100"),
        (customized("InvocationsPerInstance", Namespace="AWS/SageMaker"), "as Sum only"),
        (customized(Metrics=[{"Id": "m1"}]), "not supported"),
        (
            {"CustomizedMetricSpecification": {"Namespace": "Mine", "MetricName": "M"}},
            "Statistic is required",
        ),
    ],
)
def test_K05_a_policy_that_can_never_fire_is_refused(
    world: ScalingWorld, config: dict[str, Any], reason: str
) -> None:
    target = config.pop("TargetValue", 50.0)
    with pytest.raises(Fault) as refused:
        world.track(target, **config)
    assert refused.value.code == "ValidationException"
    assert reason in refused.value.message
    assert policies(world) == [] and alarms(world) == []


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        ("SageMakerVariantConcurrentRequestsPerModelHighResolution", "not supported"),
        ("SageMakerVariantProvisionedConcurrencyUtilization", "not valid for the scalable dimension"),
        ("ECSServiceAverageCPUUtilization", "not valid for the scalable dimension"),
    ],
)
def test_K01_predefined_metrics_of_others_are_refused(world: ScalingWorld, type_: str, reason: str) -> None:
    config = {"TargetValue": 1.0, "PredefinedMetricSpecification": {"PredefinedMetricType": type_}}
    refusal = world.refusal(
        "PutScalingPolicy",
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=config,
    )
    assert reason in refusal


def test_K05_one_metric_is_tracked_once(world: ScalingWorld) -> None:
    world.track(30.0)
    with pytest.raises(Fault, match="Only one TargetTrackingScaling policy for a given metric"):
        world.track(50.0, name="other")
    world.track(50.0, name="cpu", **customized())
    assert [each["PolicyName"] for each in policies(world)] == ["tt", "cpu"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"StepAdjustments": [{"ScalingAdjustment": 1}]}, "AdjustmentType is required"),
        ({"AdjustmentType": "ChangeInCapacity"}, "At least one"),
        (
            {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": [{"ScalingAdjustment": 0}]},
            "could never scale",
        ),
        (
            {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [
                    {
                        "MetricIntervalLowerBound": 0.0,
                        "MetricIntervalUpperBound": 10.0,
                        "ScalingAdjustment": 1,
                    },
                    {"MetricIntervalLowerBound": 5.0, "ScalingAdjustment": 2},
                ],
            },
            "overlap",
        ),
        (
            {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [
                    {
                        "MetricIntervalLowerBound": 0.0,
                        "MetricIntervalUpperBound": 10.0,
                        "ScalingAdjustment": 1,
                    },
                    {"MetricIntervalLowerBound": 15.0, "ScalingAdjustment": 2},
                ],
            },
            "gap: between 10 and 15",
        ),
        (
            {
                "AdjustmentType": "ChangeInCapacity",
                "MinAdjustmentMagnitude": 2,
                "StepAdjustments": [{"ScalingAdjustment": 1}],
            },
            "PercentChangeInCapacity only",
        ),
        ({"AdjustmentType": "ExactCapacity", "StepAdjustments": [{"ScalingAdjustment": -1}]}, "negative"),
        (
            {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [
                    {
                        "MetricIntervalLowerBound": 5.0,
                        "MetricIntervalUpperBound": 5.0,
                        "ScalingAdjustment": 1,
                    }
                ],
            },
            "greater than",
        ),
    ],
)
def test_K02_steps_that_make_no_sense_are_refused(
    world: ScalingWorld, config: dict[str, Any], reason: str
) -> None:
    assert reason in world.refusal("PutScalingPolicy", PolicyName="s", StepScalingPolicyConfiguration=config)


def test_K02_a_policy_may_change_its_type(world: ScalingWorld) -> None:
    world.track(30.0, name="p")
    steps = {"AdjustmentType": "ExactCapacity", "StepAdjustments": [{"ScalingAdjustment": 2}]}
    world.scaling_call("PutScalingPolicy", PolicyName="p", StepScalingPolicyConfiguration=steps)
    (shown,) = policies(world)
    assert shown["PolicyType"] == "StepScaling" and shown["StepScalingPolicyConfiguration"] == steps
    assert alarms(world) == []


def test_K05_predictive_scaling_and_mixed_configurations_are_refused(world: ScalingWorld) -> None:
    assert "PredictiveScaling is not supported" in world.refusal(
        "PutScalingPolicy", PolicyName="p", PolicyType="PredictiveScaling"
    )
    assert "is required for a policy of type TargetTrackingScaling" in world.refusal(
        "PutScalingPolicy", PolicyName="p", PolicyType="TargetTrackingScaling"
    )


def plan(world: ScalingWorld, **params: Any) -> Any:
    given = {
        "ScheduledActionName": "nightly",
        "Schedule": "cron(0 22 * * ? *)",
        "ScalableTargetAction": {"MinCapacity": 1, "MaxCapacity": 1},
    }
    return world.scaling_call("PutScheduledAction", **given | params)


def test_K04_a_scheduled_action_is_kept_changed_and_shown(world: ScalingWorld) -> None:
    plan(world, Timezone="Europe/Berlin")
    (shown,) = planned(world, ScheduledActionNames=["nightly"], ResourceId=RESOURCE)
    assert shown["Schedule"] == "cron(0 22 * * ? *)" and shown["Timezone"] == "Europe/Berlin"
    assert ":scheduledAction:" in shown["ScheduledActionARN"]
    plan(world, ScalableTargetAction={"MaxCapacity": 2})
    assert planned(world)[0]["ScalableTargetAction"] == {"MinCapacity": 1, "MaxCapacity": 2}
    world.scaling_call("DeleteScheduledAction", ScheduledActionName="nightly")
    assert planned(world) == []
    assert world.refusal("DeleteScheduledAction", ScheduledActionName="nightly").startswith(
        "ObjectNotFoundException: No scheduled action found for service namespace: sagemaker"
    )


def test_K04_schedules_that_never_come_are_refused(world: ScalingWorld) -> None:
    now = world.clock.now()
    for params, reason in (
        ({"Schedule": "at(2020-01-01T00:00:00)"}, "in the past or never comes"),
        ({"Schedule": "cron(0 0 31 2 ? *)"}, "in the past or never comes"),
        ({"Schedule": "cron(0 0 1 1 ? *)", "EndTime": now + timedelta(days=1)}, "never comes"),
        ({"Schedule": "every day"}, "Invalid schedule every day"),
        ({"Timezone": "Mars/Olympus"}, "IANA"),
        ({"EndTime": now - timedelta(days=1)}, "past"),
        ({"StartTime": now + timedelta(days=2), "EndTime": now + timedelta(days=1)}, "before EndTime"),
        ({"ScalableTargetAction": {}}, "MinCapacity, MaxCapacity or both"),
        ({"ScalableTargetAction": {"MinCapacity": 5}}, "cannot be less"),
    ):
        with pytest.raises(Fault) as refused:
            plan(world, **params)
        assert reason in refused.value.message, params
    assert planned(world) == []


def test_K05_lists_are_paged(world: ScalingWorld) -> None:
    for number in range(5):
        plan(world, ScheduledActionName=f"a{number}")
    names: list[str] = []
    more: dict[str, Any] = {}
    while True:
        found = world.call(
            _AUTOSCALING, "DescribeScheduledActions", ServiceNamespace="sagemaker", MaxResults=2, **more
        )
        names += [each["ScheduledActionName"] for each in found["ScheduledActions"]]
        if "NextToken" not in found:
            break
        more = {"NextToken": found["NextToken"]}
    assert names == [f"a{number}" for number in range(5)]
    with pytest.raises(Fault, match="InvalidNextTokenException"):
        planned(world, NextToken="bm9uc2Vuc2U")
    with pytest.raises(Fault, match="MaxResults"):
        planned(world, MaxResults=51)


def test_K05_other_services_have_no_targets(world: ScalingWorld) -> None:
    found = world.call(_AUTOSCALING, "DescribeScalableTargets", ServiceNamespace="ecs")
    assert found["ScalableTargets"] == []


def test_K05_targets_are_tagged(world: ScalingWorld) -> None:
    arn = targets(world)[0]["ScalableTargetARN"]
    world.call(_AUTOSCALING, "TagResource", ResourceARN=arn, Tags={"team": "rings", "stage": "test"})
    world.call(_AUTOSCALING, "UntagResource", ResourceARN=arn, TagKeys=["stage"])
    assert world.call(_AUTOSCALING, "ListTagsForResource", ResourceARN=arn)["Tags"] == {"team": "rings"}
    with pytest.raises(Fault, match="ResourceNotFoundException"):
        world.call(_AUTOSCALING, "ListTagsForResource", ResourceARN=arn + "0")
    with pytest.raises(Fault, match="TooManyTagsException"):
        world.call(_AUTOSCALING, "TagResource", ResourceARN=arn, Tags={str(n): "" for n in range(50)})
