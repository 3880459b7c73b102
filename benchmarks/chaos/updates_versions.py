"""The versions that updates go between, the strategies they take, and what is read about a deployment."""

import io
import math
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import xgboost
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.chaos.experiment import hold, wait_until
from benchmarks.chaos.ledger import connection_to
from benchmarks.chaos.remains import instance_directories, instance_processes, minders
from benchmarks.chaos.updates_load import Questions
from benchmarks.platform import BUCKET, IMAGE, ROLE, Platform, archive, model_files

INSTANCES = 4
VARIANT = "AllTraffic"
QUESTIONS = 400
PATIENCE_S = 120.0

SCRIPT = """
import time
{prelude}
def model_fn(directory):
    {load}
def input_fn(body, content_type):
    return float(body.decode() if isinstance(body, bytes) else body)
def predict_fn(number, model):
    {before}
    time.sleep(0.4 if number % 40 == 0 else 0.005)
    return {version} * 1000.0 + number
def output_fn(prediction, accept):
    return str(prediction)
"""
"""A user's inference.py whose answer tells its version and to which question it belongs. Now and then it takes long."""


def strategies(wait_s: int) -> dict[str, dict[str, Any]]:
    """Every way to update, one instance of four at a time where it goes by steps."""
    one = {"Type": "INSTANCE_COUNT", "Value": 1}

    def routed(kind: str, **size: Any) -> dict[str, Any]:
        routing = {"Type": kind, "WaitIntervalInSeconds": wait_s, **size}
        return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}

    return {
        "all at once": routed("ALL_AT_ONCE"),
        "canary": routed("CANARY", CanarySize=one),
        "linear": routed("LINEAR", LinearStepSize=one),
        "rolling": {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": one,
                "WaitIntervalInSeconds": wait_s,
                "RollbackMaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            }
        },
    }


FIRST_SHARE = {"all at once": 1.0, "canary": 0.25, "linear": 0.25, "rolling": 0.25}
"""What the first step of each gives the new version."""


def built_in(platform: Platform, names: tuple[str, ...]) -> Questions:
    """A configuration for each name, with a booster of its own behind the built-in handler."""
    random = np.random.default_rng(1)
    rows = random.random((QUESTIONS, 8), dtype=np.float32).round(4)
    answers = {}
    for number, name in enumerate(names):
        values = 100.0 * number + 3 + 10 * rows[:, 0] + 5 * rows[:, 3] ** 2
        booster = xgboost.train({"max_depth": 4, "nthread": 2}, xgboost.DMatrix(rows, label=values), 20)
        answers[name] = [float(value) for value in booster.predict(xgboost.DMatrix(rows))]
        configure(platform, name, archive(model_files(booster)))
    bodies = [",".join(f"{value:.7g}" for value in row).encode() for row in rows]
    gaps = np.abs(np.diff(np.array(list(answers.values())), axis=0))
    assert gaps.min() > 1.0, "versions can be told apart"
    return Questions(bodies, answers)


def scripted(platform: Platform, names: tuple[str, ...], instances: int = INSTANCES) -> Questions:
    """The same with a user's script for each name."""
    for number, name in enumerate(names):
        configure(platform, name, script(number + 1), instances)
    return script_questions(names)


def script_questions(names: tuple[str, ...]) -> Questions:
    bodies = [str(number).encode() for number in range(QUESTIONS)]
    answers = {
        name: [(n + 1) * 1000.0 + number for number in range(QUESTIONS)] for n, name in enumerate(names)
    }
    return Questions(bodies, answers)


def script(version: int, *, prelude: str = "", load: str = "return None", before: str = "pass") -> bytes:
    """model.tar.gz with `SCRIPT` in it."""
    code = SCRIPT.format(prelude=prelude, load=load, before=before, version=version)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("xgboost-model", b""), ("code/inference.py", code.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def configure(platform: Platform, name: str, content: bytes, instances: int = INSTANCES) -> None:
    """A model and an endpoint configuration of that name."""
    s3, sagemaker = platform.client("s3"), platform.client("sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=f"{name}.tar.gz", Body=content)
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{name}.tar.gz"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": VARIANT,
        "ModelName": name,
        "InstanceType": "ml.t2.medium",
        "InitialInstanceCount": instances,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


@contextmanager
def serving(platform: Platform, endpoint: str, config: str) -> Iterator[int]:
    """An endpoint of that configuration that answers at every gateway; how often it was asked. Deleted afterwards."""
    sagemaker = platform.client("sagemaker")
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    platform.wait_in_service(endpoint)
    gateways = [f"gateway-{number}" for number in range(platform.settings.gateways)]
    for name in gateways:
        connection = connection_to(platform, name)
        wait_until(lambda c=connection: c.invoke(endpoint, "1")[0] != 400, f"{endpoint} at {name}")  # type: ignore[misc]
        connection.close()
    yield len(gateways)
    sagemaker.delete_endpoint(EndpointName=endpoint)
    wait_until(lambda: not instance_directories(platform.settings), "nothing left of it", PATIENCE_S)


def described(platform: Platform, endpoint: str) -> dict[str, Any]:
    """DescribeEndpoint; empty while nobody answers."""
    try:
        found: dict[str, Any] = platform.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    except BotoCoreError:
        return {}
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 503:
            raise
        return {}
    return found


def settled(platform: Platform, endpoint: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """What DescribeEndpoint says once nothing is under way any more."""
    found: dict[str, Any] = {}

    def is_settled() -> bool:
        nonlocal found
        found = described(platform, endpoint)
        return found.get("EndpointStatus", "Updating") not in ("Creating", "Updating", "RollingBack")

    wait_until(is_settled, f"the end of the update of {endpoint}", timeout_s)
    return found


def newest_record(platform: Platform, endpoint: str) -> dict[str, Any]:
    found = platform.running.client().admin("GET", f"/_clary/deployments/{endpoint}")["Deployments"]
    newest: dict[str, Any] = found[0]
    return newest


def steps_of(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [step for step in record["Steps"] if step["Step"] == name]


def seconds(moment: str | datetime) -> float:
    """Since the epoch."""
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp()


def one_fleet(platform: Platform, count: int = INSTANCES, timeout_s: float = 60.0) -> set[str]:
    """Waits until exactly so many instances are there, and everything of the others is gone; their ids."""
    settings = platform.settings

    def counts() -> tuple[int, int, int]:
        return (
            len(instance_directories(settings)),
            len(minders(settings)),
            len(instance_processes(settings)),
        )

    deadline = time.monotonic() + timeout_s
    while set(counts()) != {count} and time.monotonic() < deadline:
        time.sleep(0.05)
    hold(set(counts()) == {count}, f"directories, minders, instances: {counts()} for {count} wanted")
    return set(minders(settings))


def metric_sum(platform: Platform, metric: str, endpoint: str, config: str = "") -> int:
    """CloudWatch's sum over the last hour, of one configuration's fleet where one is named."""
    dimensions = {"EndpointName": endpoint, "VariantName": VARIANT}
    if config:
        dimensions["EndpointConfigName"] = config
    now = math.ceil(time.time() / 60) * 60
    found = platform.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - 3600,
        EndTime=now + 60,
        Period=60,
        Statistics=["Sum"],
    )
    points: list[dict[str, float]] = found["Datapoints"]
    return round(sum(point["Sum"] for point in points))


def metric_settles_at(
    platform: Platform, metric: str, endpoint: str, count: int, config: str = "", timeout_s: float = 30.0
) -> int:
    """The same, waited for until it reaches `count`: reports come every few seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = metric_sum(platform, metric, endpoint, config)
        if found >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.25)
