"""A user's story: two frameworks on one endpoint, asked by name, and a scaler before a booster, asked at once."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import xgboost
from botocore.exceptions import ClientError
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from clary.testing.server import RunningServer
from platform_load import Load
from platform_models import (
    IMAGE,
    ROLE,
    SKLEARN,
    archive,
    booster_archive,
    csv,
    eventually,
    numbers,
    predictions,
    regressor,
    rows,
    status,
    upload,
    wait_for_status,
)

SCRIPT = b"""
import os, joblib
def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
def predict_fn(data, model):
    if data.ndim == 1:
        data = data.reshape(1, -1)
    if data.shape[1] != model.n_features_in_:
        raise ValueError(f"rows of {data.shape[1]} values")
    return model.transform(data) if hasattr(model, "transform") else model.predict(data)
"""


def sklearn_archive(model: Any) -> bytes:
    dumped = io.BytesIO()
    joblib.dump(model, dumped)
    return archive({"model.joblib": dumped.getvalue(), "code/inference.py": SCRIPT})


def config(server: RunningServer, name: str, containers: list[dict[str, Any]], **model: Any) -> None:
    """A model of these containers and an endpoint configuration of one name."""
    sagemaker = server.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, Containers=containers, **model)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def ask(server: RunningServer, name: str, features: Any, **members: Any) -> list[float]:
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Accept="text/csv", Body=csv(features), **members
    )
    return numbers(answer["Body"].read())


def refusal(server: RunningServer, name: str, features: Any, **members: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as refused:
        ask(server, name, features, **members)
    error: dict[str, Any] = dict(refused.value.response["Error"], **refused.value.response)
    return error


def told(server: RunningServer, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "clary", *command, "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    return regressor(3)


@pytest.fixture(scope="module")
def ridge() -> Ridge:
    features = rows(100).astype("float64")
    return Ridge().fit(features, features @ np.arange(7))


@pytest.fixture(scope="module")
def pair(server: RunningServer, booster: xgboost.Booster, ridge: Ridge) -> str:
    """A Direct endpoint: `trees` and `line`."""
    name = "several-direct"
    containers = [
        {
            "ContainerHostname": "trees",
            "Image": IMAGE,
            "ModelDataUrl": upload(server, f"{name}/trees.tar.gz", booster_archive(booster)),
        },
        {
            "ContainerHostname": "line",
            "Image": SKLEARN,
            "ModelDataUrl": upload(server, f"{name}/line.tar.gz", sklearn_archive(ridge)),
        },
    ]
    config(server, name, containers, InferenceExecutionConfig={"Mode": "Direct"})
    server.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_for_status(server, name, "InService")
    return name


def test_C01_two_frameworks_on_one_endpoint_answer_by_their_names(
    server: RunningServer, pair: str, booster: xgboost.Booster, ridge: Ridge
) -> None:
    features = rows(5)
    for _ in range(3):
        trees = ask(server, pair, features, TargetContainerHostname="trees")
        assert trees == pytest.approx(predictions(booster, features), rel=1e-5)
        line = ask(server, pair, features, TargetContainerHostname="line")
        assert line == pytest.approx(ridge.predict(features.astype("float64")).tolist(), rel=1e-5)
    images = status(server, pair)["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in images] == [IMAGE, SKLEARN]
    assert ["xgboost" in images[0]["ResolvedImage"], "sklearn" in images[1]["ResolvedImage"]] == [True, True]
    stream = server.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName=pair, ContentType="text/csv", Body=csv(features), TargetContainerHostname="trees"
    )
    streamed = b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])
    assert numbers(streamed) == pytest.approx(predictions(booster, features), rel=1e-5)


def test_C01_what_names_no_container_is_refused_and_errors_name_theirs(
    server: RunningServer, pair: str
) -> None:
    assert refusal(server, pair, rows(1), TargetContainerHostname="third")["Code"] == "ValidationError"
    missing = refusal(server, pair, rows(1))
    assert missing["Code"] == "ValidationError"
    assert "target container hostname" in missing["Message"]
    failed = refusal(server, pair, rows(1)[:, :3], TargetContainerHostname="line")
    assert failed["Code"] == "ModelError"
    assert "Received server error (500) from line with message" in failed["Message"]
    assert "rows of 3 values" in failed["OriginalMessage"]


def test_C01_people_see_the_containers(server: RunningServer, pair: str) -> None:
    line = next(line for line in told(server, "status").splitlines() if pair in line)
    assert "Direct: trees, line" in line
    assert "trees, line" in told(server, "why", pair)
    streams = server.client("logs").describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{pair}")
    names = {stream["logStreamName"].split("/")[2] for stream in streams["logStreams"]}
    assert names == {"trees", "line"}


@pytest.fixture(scope="module")
def pipeline(server: RunningServer) -> tuple[str, list[float]]:
    """A Serial endpoint, a scaler before a booster; what it should answer to `rows(10)`."""
    name = "several-serial"
    scaler = StandardScaler().fit(rows(300).astype("float64"))
    scaled = scaler.transform(rows(300).astype("float64"))
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(scaled, label=scaled[:, 0] * 3 + 1), 10)
    containers: list[dict[str, Any]] = [
        {
            "Image": SKLEARN,
            "ModelDataUrl": upload(server, f"{name}/scaler.tar.gz", sklearn_archive(scaler)),
            "Environment": {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"},
        },
        {
            "Image": IMAGE,
            "ModelDataUrl": upload(server, f"{name}/booster.tar.gz", booster_archive(booster)),
        },
    ]
    config(server, name, containers)
    server.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_for_status(server, name, "InService")
    return name, predictions(booster, scaler.transform(rows(10).astype("float64")))


def test_C02_a_request_goes_through_all_containers(
    server: RunningServer, pipeline: tuple[str, list[float]]
) -> None:
    name, expected = pipeline
    runtime = server.client("sagemaker-runtime")
    assert ask(server, name, rows(10)) == pytest.approx(expected, rel=1e-4)
    answer = runtime.invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Accept="application/json", Body=csv(rows(10))
    )
    assert answer["ContentType"] == "application/json"
    scores = [each["score"] for each in json.loads(answer["Body"].read())["predictions"]]
    assert scores == pytest.approx(expected, rel=1e-4)
    stream = runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, ContentType="text/csv", Body=csv(rows(10))
    )
    streamed = b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])
    assert numbers(streamed) == pytest.approx(expected, rel=1e-4)


def test_C02_the_first_failure_ends_the_chain_and_names_its_container(
    server: RunningServer, pipeline: tuple[str, list[float]]
) -> None:
    name, _ = pipeline
    failed = refusal(server, name, rows(1)[:, :3])
    assert failed["Code"] == "ModelError"
    assert "Received server error (500) from container_1 with message" in failed["Message"]
    assert refusal(server, name, rows(1), TargetContainerHostname="container_1")["Code"] == "ValidationError"


def test_C01_C02_latencies_are_told_container_by_container(
    server: RunningServer, pair: str, pipeline: tuple[str, list[float]]
) -> None:
    ask(server, pair, rows(1), TargetContainerHostname="trees")
    ask(server, pipeline[0], rows(1))
    cloudwatch = server.client("cloudwatch")

    def known() -> set[tuple[str, str]]:
        found = set()
        for metric in ("ContainerLatency", "Invocations"):
            listed = cloudwatch.list_metrics(Namespace="AWS/SageMaker", MetricName=metric)["Metrics"]
            for each in listed:
                dimensions = {one["Name"]: one["Value"] for one in each["Dimensions"]}
                if dimensions["EndpointName"] in (pair, pipeline[0]) and "ContainerName" in dimensions:
                    found.add((metric, dimensions["ContainerName"]))
        return found

    wanted = {("ContainerLatency", name) for name in ("trees", "line", "container_1", "container_2")}
    eventually(lambda: wanted | {("Invocations", "trees")} <= known(), "metrics of each container")


def test_C02_D01_a_version_whose_container_cannot_start_is_rolled_back_and_named(
    server: RunningServer, booster: xgboost.Booster
) -> None:
    name, good = "several-update", booster_archive(booster)
    with_good = {"Image": IMAGE, "ModelDataUrl": upload(server, f"{name}/good.tar.gz", good)}
    bad = archive({"xgboost-model": b"this is no model"})
    with_bad = {"Image": IMAGE, "ModelDataUrl": upload(server, f"{name}/bad.tar.gz", bad)}
    names = ("front", "back")
    direct = {"InferenceExecutionConfig": {"Mode": "Direct"}}
    for version, content in ((f"{name}-1", with_good), (f"{name}-2", with_bad), (f"{name}-3", with_good)):
        several = [
            {**part, "ContainerHostname": host}
            for part, host in zip((with_good, content), names, strict=True)
        ]
        config(server, version, several, **direct)
    sagemaker = server.client("sagemaker")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1")
    wait_for_status(server, name, "InService")

    def updated(version: str, reason: bool) -> dict[str, Any]:
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=version)

        def settled() -> dict[str, Any] | None:
            found = status(server, name)
            is_settled = found["EndpointStatus"] == "InService" and (
                "FailureReason" in found if reason else found["EndpointConfigName"] == version
            )
            return found if is_settled else None

        return eventually(settled, f"the update to {version}")

    with Load(server, name, rows(1), TargetContainerHostname="back") as load:
        failed = updated(f"{name}-2", reason=True)
        assert failed["EndpointConfigName"] == f"{name}-1"
        assert "The back container for production variant AllTraffic" in failed["FailureReason"]
        assert re.search(r"last lines of AllTraffic/i-\w+/back:", told(server, "why", name))
        load.more()
        updated(f"{name}-3", reason=False)
        load.more()
        assert load.failures == []
    sagemaker.delete_endpoint(EndpointName=name)
