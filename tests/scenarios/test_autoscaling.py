"""A variant that follows its load, its schedule and its limits: over the real server, with real instances."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from clary.testing.server import RunningServer
from platform_models import deploy, eventually, invoke, regressor, rows, status

_DIMENSION = "sagemaker:variant:DesiredInstanceCount"


@contextmanager
def load(server: RunningServer, name: str) -> Iterator[list[Exception]]:
    """Requests without a pause, by two clients; what of them failed."""
    stop, failures = threading.Event(), list[Exception]()

    def work() -> None:
        while not stop.is_set():
            try:
                invoke(server, name, rows(1))
            except Exception as error:  # noqa: BLE001 every failure is told
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def schedule_soon(scaling: Any, **action: Any) -> None:
    """What is to come must lie ahead when the server hears of it: on a busy machine that may be later."""
    for ahead_s in (2, 10, 30):
        moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
        try:
            scaling.put_scheduled_action(Schedule=moment.strftime("at(%Y-%m-%dT%H:%M:%S)"), **action)
            return
        except scaling.exceptions.ValidationException as refusal:
            assert "in the past" in str(refusal)
    raise AssertionError("no moment was far enough ahead")


def test_K01_K04_K05_a_variant_follows_load_schedule_and_limits(server: RunningServer) -> None:
    scaling, alarms = server.client("application-autoscaling"), server.client("cloudwatch")
    deploy(server, "scaled", regressor())
    resource = "endpoint/scaled/variant/AllTraffic"
    key: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource,
        "ScalableDimension": _DIMENSION,
    }

    def count() -> int:
        return int(status(server, "scaled")["ProductionVariants"][0]["CurrentInstanceCount"])

    def activities() -> list[Any]:
        found = scaling.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId=resource)
        return list(found["ScalingActivities"])

    scaling.register_scalable_target(MinCapacity=1, MaxCapacity=3, **key)
    policy = scaling.put_scaling_policy(
        PolicyName="follow",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 20.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
        },
        **key,
    )
    names = [alarm["AlarmName"] for alarm in policy["Alarms"]]
    with load(server, "scaled") as failures:
        eventually(lambda: count() == 3 or None, "scaling out to the maximum")
    assert failures == [], "scaling out costs no request"
    newest = eventually(
        lambda: next((each for each in activities() if each["StatusCode"] == "Successful"), None),
        "the activity",
    )
    assert newest["Cause"] == f"monitor alarm {names[0]} in state ALARM triggered policy follow"
    assert len(alarms.describe_alarms(AlarmNames=names)["MetricAlarms"]) == 2

    scaling.delete_scaling_policy(PolicyName="follow", **key)
    assert alarms.describe_alarms(AlarmNames=names)["MetricAlarms"] == []
    schedule_soon(
        scaling,
        ScheduledActionName="night",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1},
        **key,
    )
    with load(server, "scaled") as failures:
        eventually(lambda: count() == 1 or None, "the scheduled action")
    assert failures == [], "scaling in costs no request"
    assert [each["Cause"] for each in activities()][:2] == [
        "maximum capacity was set to 1",
        "scheduled action name night was triggered",
    ]

    server.client("sagemaker").delete_endpoint(EndpointName="scaled")
    eventually(
        lambda: (
            scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == [] or None
        ),
        "the target goes with its endpoint",
    )
    assert activities(), "what was done is still told"
