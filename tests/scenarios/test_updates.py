"""The story of updates: a new version takes over step by step under load, and a bad one never does."""

import subprocess
import sys
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_load import Load
from platform_models import (
    IMAGE,
    ROLE,
    archive,
    booster_archive,
    eventually,
    predictions,
    regressor,
    rows,
    status,
    upload,
    wait_for_status,
)

GOOD, BETTER, BROKEN, RAISING = "updates-good", "updates-better", "updates-broken", "updates-raising"
SCRIPT = b"""
def model_fn(model_dir):
    return None
def predict_fn(data, model):
    raise RuntimeError("this version never works")
"""


def config(server: RunningServer, name: str, content: bytes, instances: int = 2, **members: Any) -> None:
    """A model and an endpoint configuration of one name."""
    sagemaker = server.client("sagemaker")
    primary = {"Image": IMAGE, "ModelDataUrl": upload(server, f"{name}/model.tar.gz", content)}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=primary)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": instances,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **members)


@pytest.fixture(scope="module")
def versions(server: RunningServer) -> dict[str, float]:
    """Two versions that can be told apart by their answers to `rows(1)`, one that does not load, one that fails."""
    good, better = regressor(1), regressor(2)
    config(server, GOOD, booster_archive(good))
    config(server, BETTER, booster_archive(better))
    config(server, BROKEN, archive({"xgboost-model": b"this is no model"}))
    config(server, RAISING, archive({"xgboost-model": b"", "code/inference.py": SCRIPT}))
    answers = {name: round(predictions(b, rows(1))[0], 3) for name, b in ((GOOD, good), (BETTER, better))}
    assert answers[GOOD] != answers[BETTER]
    return answers


def endpoint(server: RunningServer, name: str, version: str = GOOD) -> None:
    server.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=version)
    wait_for_status(server, name, "InService")


def update(server: RunningServer, name: str, version: str, **deployment: Any) -> None:
    server.client("sagemaker").update_endpoint(
        EndpointName=name, EndpointConfigName=version, DeploymentConfig=deployment
    )


def routed(kind: str, wait_s: int, **size: Any) -> dict[str, Any]:
    routing: dict[str, Any] = {"Type": kind, "WaitIntervalInSeconds": wait_s, **size}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


ONE = {"Type": "INSTANCE_COUNT", "Value": 1}
HALF = {"Type": "CAPACITY_PERCENT", "Value": 50}
STRATEGIES = {
    "all-at-once": routed("ALL_AT_ONCE", 1),
    "canary": routed("CANARY", 3, CanarySize=ONE),
    "linear": routed("LINEAR", 1, LinearStepSize=HALF),
    "rolling": {"RollingUpdatePolicy": {"MaximumBatchSize": HALF, "WaitIntervalInSeconds": 1}},
}


def pending_stages(found: dict[str, Any]) -> set[str]:
    pending = found.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
    return {state["Status"] for variant in pending for state in variant.get("VariantStatus", [])}


def told(server: RunningServer, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "clary", *command, "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_H14_D01_every_strategy_moves_the_traffic_without_a_failed_request(
    server: RunningServer, versions: dict[str, float], strategy: str
) -> None:
    name, policy = f"update-{strategy}", STRATEGIES[strategy]
    endpoint(server, name)

    def arrived() -> bool:
        found = status(server, name)
        return (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", BETTER)

    with Load(server, name, rows(1)) as load:
        update(server, name, BETTER, **policy)
        eventually(arrived, f"the {strategy} update")
        assert set(load.more()) == {versions[BETTER]}
        assert set(load.answers) == {versions[GOOD], versions[BETTER]}
        assert load.failures == []
    (told_of, _) = server.running.client().admin("GET", f"/_clary/deployments/{name}")["Deployments"]
    steps = [step["Step"] for step in told_of["Steps"]]
    assert steps.index("traffic shifted") < steps.index("bake passed") < steps.index("in service")
    found = status(server, name)
    assert found["LastDeploymentConfig"] == policy
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert "FailureReason" not in found
    record = told(server, "deployments", name)
    assert GOOD in record
    assert "succeeded" in record.splitlines()[3]
    server.client("sagemaker").delete_endpoint(EndpointName=name)


def test_D01_Z03_a_version_that_cannot_start_is_rolled_back_and_everybody_is_told(
    server: RunningServer, versions: dict[str, float]
) -> None:
    endpoint(server, "failing")
    with Load(server, "failing", rows(1)) as load:
        update(server, "failing", BROKEN, **STRATEGIES["canary"])
        found = wait_for_status(server, "failing", "InService")
        load.more()
        assert set(load.answers) == {versions[GOOD]}
        assert load.failures == []
    assert found["EndpointConfigName"] == GOOD
    assert "did not pass the ping health check" in found["FailureReason"]
    assert "clary why failing" in found["FailureReason"]
    assert "PendingDeploymentSummary" not in found
    (record, creation) = server.running.client().admin("GET", "/_clary/deployments/failing")["Deployments"]
    assert (record["Verdict"], record["From"], record["To"]) == ("rolled-back", GOOD, BROKEN)
    assert "did not pass the ping" in record["Reason"]
    assert record["EndedAt"] > record["StartedAt"]
    assert any("model did not load" in str(step["Evidence"]) for step in record["Steps"])
    assert creation["Verdict"] == "succeeded"
    assert f"AllTraffic.model_name: {GOOD} → {BROKEN}" in told(server, "deployments", "failing")
    assert "clary deployments failing" in told(server, "why", "failing")
    # The endpoint is as good as before: it takes the next update, which keeps the policy and forgets the reason.
    server.client("sagemaker").update_endpoint(
        EndpointName="failing", EndpointConfigName=BETTER, RetainDeploymentConfig=True
    )
    found = wait_for_status(server, "failing", "InService")
    assert (found["EndpointConfigName"], "FailureReason" in found) == (BETTER, False)


def test_D05_an_alarm_rolls_a_canary_back_long_before_its_bake_is_over(
    server: RunningServer, versions: dict[str, float]
) -> None:
    endpoint(server, "alarmed")
    cloudwatch = server.client("cloudwatch")
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "Too-Bad"}]}}
    policy = routed("CANARY", 600, CanarySize=ONE) | watched
    with pytest.raises(ClientError, match="do not exist in us-east-1: Too-Bad"):
        update(server, "alarmed", BETTER, **policy)
    cloudwatch.put_metric_alarm(
        AlarmName="Too-Bad", Namespace="Mine", MetricName="Badness", Statistic="Sum", Period=60,
        EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )  # fmt: skip
    with Load(server, "alarmed", rows(1)) as load:
        update(server, "alarmed", BETTER, **policy)
        eventually(lambda: pending_stages(status(server, "alarmed")) == {"Baking"}, "the canary to bake")
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            update(server, "alarmed", GOOD)
        assert set(load.more(60)) == {versions[GOOD], versions[BETTER]}
        cloudwatch.set_alarm_state(AlarmName="Too-Bad", StateValue="ALARM", StateReason="it is bad")
        found = wait_for_status(server, "alarmed", "InService")
        assert set(load.more()) == {versions[GOOD]}
        assert load.failures == []
    assert found["EndpointConfigName"] == GOOD
    assert "Too-Bad" in found["FailureReason"]
    (record, _) = server.running.client().admin("GET", "/_clary/deployments/alarmed")["Deployments"]
    assert record["Verdict"] == "rolled-back"
    back = next(step for step in record["Steps"] if step["Step"] == "rolling back")
    assert back["Evidence"]["alarms"] == {"Too-Bad": "ALARM"}
    assert "bake passed" not in [step["Step"] for step in record["Steps"]]
    cloudwatch.delete_alarms(AlarmNames=["Too-Bad"])


def test_D05_D07_errors_of_the_new_version_alone_take_it_back(
    server: RunningServer, versions: dict[str, float]
) -> None:
    endpoint(server, "judged")
    cloudwatch = server.client("cloudwatch")
    dimensions = {"EndpointName": "judged", "VariantName": "AllTraffic", "EndpointConfigName": RAISING}
    cloudwatch.put_metric_alarm(
        AlarmName="new-version-fails", Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()], Statistic="Sum",
        Period=10, EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )  # fmt: skip
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "new-version-fails"}]}}
    with Load(server, "judged", rows(1)) as load:
        update(server, "judged", RAISING, **routed("CANARY", 600, CanarySize=ONE), **watched)
        found = wait_for_status(server, "judged", "InService")
        load.more(50)
        assert set(load.answers) == {versions[GOOD]}
        assert load.failures
        assert all("this version never works" in failure for failure in load.failures)
    assert found["EndpointConfigName"] == GOOD
    assert "new-version-fails" in found["FailureReason"]
    cloudwatch.delete_alarms(AlarmNames=["new-version-fails"])
