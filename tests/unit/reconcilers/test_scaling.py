"""Scalable targets in virtual time: what moves the endpoint's count, when, and what is told about it."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clary.domain.faults import Fault
from clary.drivers.fake import Plan
from clary.reconcilers.scaling_activities import forget_old
from control.scaling_world import ScalingWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ScalingWorld]:
    world = ScalingWorld(tmp_path)
    yield world
    world.close()


def test_K05_a_target_below_its_minimum_or_above_its_maximum_is_moved_at_once(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=3, MaxCapacity=5)
    assert world.until(lambda: world.count == 3, "the minimum") <= 5
    world.run(3)
    newest = world.activities()[0]
    assert newest["Cause"] == "minimum capacity was set to 3"
    assert newest["Description"] == "Setting desired instance count to 3."
    assert newest["StatusCode"] == "Successful"
    assert newest["StatusMessage"] == (
        "Successfully set desired instance count to 3. Change successfully fulfilled by sagemaker."
    )
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=2)
    world.until(lambda: world.count == 2, "the maximum")
    assert world.activities()[0]["Cause"] == "maximum capacity was set to 2"


def test_K05_a_capacity_set_by_hand_stays_within_the_limits_and_is_moved_outside(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=3)
    by_hand(world, 2)
    world.run(90)
    assert world.count == 2 and world.activities() == []
    by_hand(world, 5)
    world.run(5)
    assert world.count == 5
    world.until(lambda: world.count == 3, "the maximum", within_s=100)
    assert world.activities()[0]["Cause"] == (
        "the endpoint was updated to 5 instances, above the maximum capacity of 3"
    )


def test_K01_a_burst_has_enough_capacity_within_fifteen_seconds(world: ScalingWorld) -> None:
    """50 requests a second, then 500, against 3,000 a minute for each instance."""
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=20)
    policy = world.track(3000.0)
    high = policy["Alarms"][0]["AlarmName"]
    world.run(200, requests=49.0)
    assert world.count == 1
    took = world.until(lambda: world.count >= 10, "enough capacity", requests=500.0)
    assert took <= 15
    assert world.alarm(high) == "ALARM"
    assert world.activities()[0]["Cause"] == f"monitor alarm {high} in state ALARM triggered policy tt"
    world.run(120, requests=500.0)
    assert world.count <= 11, "and not much more than enough"


@pytest.mark.parametrize("phase", range(1, 5))
def test_K01_when_the_burst_begins_does_not_matter(world: ScalingWorld, phase: int) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=20)
    world.track(3000.0)
    world.run(60 + phase, requests=49.0)
    assert world.until(lambda: world.count >= 10, "enough capacity", requests=500.0) <= 15


def test_K01_awss_timing_waits_for_three_minutes(tmp_path: Path) -> None:
    world = ScalingWorld(tmp_path, timing="aws")
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=20)
    world.track(3000.0)
    world.run(60, requests=49.0)
    assert 180 <= world.until(lambda: world.count >= 10, "scaling out", requests=500.0, within_s=400) <= 320
    world.close()


def test_K01_without_requests_a_fleet_shrinks_to_its_minimum(tmp_path: Path) -> None:
    """On SageMaker no requests are no values, and the fleet stays as it was."""
    world = ScalingWorld(tmp_path, instances=6)
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=8)
    world.track(3000.0, ScaleInCooldown=30)
    world.rest(840)
    assert world.count == 6, "a quarter of an hour has not passed"
    world.until(lambda: world.count == 1, "scaling in", within_s=400)
    causes = [each["Cause"] for each in world.activities()]
    assert len(causes) == 3 and all("AlarmLow" in cause for cause in causes), "by halves"
    world.run(60)
    assert world.count == 1
    told = world.activities(IncludeNotScaledActivities=True)[0]
    assert told["NotScaledReasons"] == [{"Code": "AlreadyAtMinCapacity", "MinCapacity": 1}]
    world.close()


def test_K03_disable_scale_in_keeps_a_fleet(tmp_path: Path) -> None:
    world = ScalingWorld(tmp_path, instances=3)
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=8)
    world.track(3000.0, DisableScaleIn=True)
    world.rest(1200)
    assert world.count == 3
    world.close()


def test_K03_suspended_scaling_out_waits_until_it_is_resumed(world: ScalingWorld) -> None:
    world.scaling_call(
        "RegisterScalableTarget",
        MinCapacity=1,
        MaxCapacity=4,
        SuspendedState={"DynamicScalingOutSuspended": True},
    )
    world.track(300.0)
    world.run(60, requests=20.0)
    assert world.count == 1
    world.scaling_call("RegisterScalableTarget", SuspendedState={"DynamicScalingOutSuspended": False})
    world.until(lambda: world.count == 4, "scaling out", requests=20.0)


def test_K05_the_maximum_is_told_once(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=2)
    world.track(300.0)
    world.run(90, requests=50.0)
    assert world.count == 2
    told = [each for each in world.activities(IncludeNotScaledActivities=True) if "NotScaledReasons" in each]
    assert [each["NotScaledReasons"] for each in told] == [
        [{"Code": "AlreadyAtMaxCapacity", "MaxCapacity": 2}]
    ]
    assert told[0]["StatusCode"] == "Unfulfilled"


def test_K05_custom_cpu_utilisation_is_tracked(world: ScalingWorld) -> None:
    dimensions = {"EndpointName": "e", "VariantName": "AllTraffic"}
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=9)
    world.track(
        50.0,
        CustomizedMetricSpecification={
            "Namespace": "/aws/sagemaker/Endpoints",
            "MetricName": "CPUUtilization",
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            "Statistic": "Average",
            "Unit": "Percent",
        },
    )
    for _ in range(60):
        load = 140.0 / world.count  # percent of one vCPU, shared by the instances
        if world.clock.now().second % 5 == 0:
            world.measure("/aws/sagemaker/Endpoints", "CPUUtilization", load, "Percent", **dimensions)
        world.tick()
    assert world.count == 3, "140 percent in all, 50 for each"


def test_K05_a_metric_of_the_users_own_is_tracked(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=9)
    world.track(
        10.0,
        CustomizedMetricSpecification={"Namespace": "Mine", "MetricName": "Backlog", "Statistic": "Average"},
    )
    world.measure("Mine", "Backlog", 35.0)
    world.until(lambda: world.count == 4, "scaling out")
    for _ in range(
        240
    ):  # its value does not depend on the capacity: nothing is added while the cool-down lasts
        if world.clock.now().second == 0:
            world.measure("Mine", "Backlog", 35.0)
        world.tick()
    assert world.count == 4


def test_K04_a_scheduled_action_sets_limits_when_it_is_due(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    at = (world.clock.now() + timedelta(seconds=20)).strftime("at(%Y-%m-%dT%H:%M:%S)")
    world.scaling_call(
        "PutScheduledAction",
        ScheduledActionName="up",
        Schedule=at,
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 6},
    )
    world.run(18)
    assert world.count == 1
    world.until(lambda: world.count == 2, "the scheduled action", within_s=10)
    world.rest(120)
    limits = world.call("application-autoscaling", "DescribeScalableTargets", ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ][0]
    assert (limits["MinCapacity"], limits["MaxCapacity"]) == (2, 6)
    told = [(each["Description"], each["Cause"], each["StatusCode"]) for each in world.activities()]
    assert told == [
        ("Setting desired instance count to 2.", "minimum capacity was set to 2", "Successful"),
        (
            "Setting min capacity to 2 and max capacity to 6",
            "scheduled action name up was triggered",
            "Successful",
        ),
    ]


def test_K04_suspended_schedules_pass_by(world: ScalingWorld) -> None:
    world.scaling_call(
        "RegisterScalableTarget",
        MinCapacity=1,
        MaxCapacity=4,
        SuspendedState={"ScheduledScalingSuspended": True},
    )
    world.scaling_call(
        "PutScheduledAction",
        ScheduledActionName="up",
        Schedule="rate(1 minute)",
        ScalableTargetAction={"MinCapacity": 3},
    )
    world.run(70)
    world.scaling_call("RegisterScalableTarget", SuspendedState={"ScheduledScalingSuspended": False})
    world.run(30)
    assert world.count == 1, "what was due while it was suspended is not made up for"
    world.until(lambda: world.count == 3, "the next time", within_s=60)


def test_K02_a_step_policy_acts_on_its_users_alarm(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=9)
    policy = world.scaling_call(
        "PutScalingPolicy",
        PolicyName="step",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [
                {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 50.0, "ScalingAdjustment": 1},
                {"MetricIntervalLowerBound": 50.0, "ScalingAdjustment": 3},
            ],
            "Cooldown": 60,
        },
    )
    user_alarm(world, policy["PolicyARN"])
    world.measure("Mine", "Queue", 110.0)
    world.until(lambda: world.count == 2, "one step", within_s=10)
    world.run(30)
    assert world.count == 2, "the cool-down"
    world.measure("Mine", "Queue", 300.0)
    world.until(lambda: world.count == 4, "a larger step adds what it has more", within_s=10)
    assert world.activities()[0]["Cause"] == "monitor alarm queue in state ALARM triggered policy step"
    shown = world.call("application-autoscaling", "DescribeScalingPolicies", ServiceNamespace="sagemaker")[
        "ScalingPolicies"
    ][0]
    assert [alarm["AlarmName"] for alarm in shown["Alarms"]] == ["queue"]
    world.rest(400)
    assert world.alarm("queue") == "OK"
    settled = world.count
    world.rest(120)
    assert world.count == settled, "an alarm that is over triggers nothing"


def test_K02_a_step_policy_steps_again_after_its_cooldown(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    policy = world.scaling_call(
        "PutScalingPolicy",
        PolicyName="step",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
            "Cooldown": 20,
        },
    )
    user_alarm(world, policy["PolicyARN"])
    seen = []
    for _ in range(100):
        if world.clock.now().second % 30 == 0:
            world.measure("Mine", "Queue", 110.0)
        world.tick()
        seen.append(world.count)
    assert world.count == 4
    first = {count: seen.index(count) for count in (2, 3, 4)}
    assert 20 <= first[3] - first[2] <= 30 and 20 <= first[4] - first[3] <= 30


def test_K02_scaling_in_by_steps(tmp_path: Path) -> None:
    world = ScalingWorld(tmp_path, instances=4)
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    policy = world.scaling_call(
        "PutScalingPolicy",
        PolicyName="down",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "PercentChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": -50}],
            "Cooldown": 30,
        },
    )
    user_alarm(world, policy["PolicyARN"], ComparisonOperator="LessThanThreshold")
    for _ in range(3):
        world.measure("Mine", "Queue", 3.0)
        world.run(7)
    assert world.count == 2, "half of them"
    world.run(10)
    assert world.count == 2, "the cool-down"
    world.close()


def test_K05_a_change_waits_for_an_update_of_the_endpoint(world: ScalingWorld) -> None:
    world.control.plan(Plan(until="starting"))
    world.control.config("c2")
    world.control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c2")
    world.scaling_call("RegisterScalableTarget", MinCapacity=2, MaxCapacity=4)
    world.run(3)
    assert world.status == "Updating"
    assert [each["StatusCode"] for each in world.activities()] == ["Pending"]
    world.control.plan(Plan())
    for id_, status in world.control.held.items():
        if status.phase == "starting":
            world.control.driver.lose(id_)
    world.until(lambda: world.count == 2, "the minimum", within_s=90)
    world.run(2)
    assert [each["StatusCode"] for each in world.activities()] == ["Successful"]
    assert world.endpoint["EndpointConfigName"] == "c2"


def test_K05_a_change_that_meets_an_update_just_over_when_looked_for_is_tried_again(
    world: ScalingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused because of it, although nobody sees it under way: before the call and after it the endpoint rests."""
    met: list[Fault] = []

    def call(service: str, operation: str, params: Any, **where: Any) -> Any:
        if met or operation != "UpdateEndpointWeightsAndCapacities":
            return world.caller(service, operation, params, **where)
        heavier = [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}]
        world.control.call(operation, EndpointName="e", DesiredWeightsAndCapacities=heavier)
        try:
            return world.caller(service, operation, params, **where)
        except Fault as fault:
            met.append(fault)
            while world.status == "Updating":
                world.runner.run_pending()
                world.control.driver.step()
            raise

    monkeypatch.setattr(world.scaling, "_call", call)
    world.scaling_call("RegisterScalableTarget", MinCapacity=2, MaxCapacity=4)
    world.until(lambda: world.count == 2, "the minimum", within_s=10)
    world.run(2)
    assert ["in-progress" in fault.message for fault in met] == [True]
    assert [each["StatusCode"] for each in world.activities()] == ["Successful"]


def test_K05_what_the_endpoint_refuses_is_told_and_tried_later(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=101, MaxCapacity=200)
    world.run(5)
    newest = world.activities()[0]
    assert newest["StatusCode"] == "Failed"
    assert newest["StatusMessage"].startswith(
        "Failed to set desired instance count to 101. Reason: The account-level service limit"
    )
    world.run(20)
    assert len(world.activities()) == 1, "not again and again"
    world.scaling_call("RegisterScalableTarget", MinCapacity=2, MaxCapacity=200)
    world.until(lambda: world.count == 2, "limits that can be kept", within_s=10)


def test_K05_what_is_always_refused_is_tried_more_and_more_rarely(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=101, MaxCapacity=200)
    world.run(600)
    moments = sorted(each["StartTime"] for each in world.activities())
    pauses = [(later - before).total_seconds() for before, later in pairwise(moments)]
    assert len(pauses) == 4 and pauses == sorted(pauses)
    assert [round(pause / 30) for pause in pauses] == [1, 2, 4, 8]


def test_K05_the_target_goes_with_its_endpoint(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    world.track(30.0)
    world.control.call("DeleteEndpoint", EndpointName="e")
    world.run(70)
    assert (
        world.call("application-autoscaling", "DescribeScalableTargets", ServiceNamespace="sagemaker")[
            "ScalableTargets"
        ]
        == []
    )
    assert world.call("cloudwatch", "DescribeAlarms")["MetricAlarms"] == []


def test_K05_activities_of_endpoints_that_are_gone_are_forgotten_after_six_weeks(world: ScalingWorld) -> None:
    world.scaling_call("RegisterScalableTarget", MinCapacity=2, MaxCapacity=4)
    world.until(lambda: world.count == 2, "the minimum")
    store, began = world.control.store, world.clock.now()
    assert forget_old(store, began + timedelta(weeks=5)) == 0
    assert forget_old(store, began + timedelta(weeks=7)) == 1
    assert world.activities() == []


def by_hand(world: ScalingWorld, count: int) -> None:
    world.control.call(
        "UpdateEndpointWeightsAndCapacities",
        EndpointName="e",
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": count}],
    )
    world.until(lambda: world.status == "InService" and world.count == count, "the change by hand")


def user_alarm(world: ScalingWorld, arn: str, **members: object) -> None:
    given = {
        "AlarmName": "queue",
        "Namespace": "Mine",
        "MetricName": "Queue",
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 100.0,
        "ComparisonOperator": "GreaterThanThreshold",
        "AlarmActions": [arn],
        "TreatMissingData": "notBreaching",
    }
    world.call("cloudwatch", "PutMetricAlarm", **given | members)
