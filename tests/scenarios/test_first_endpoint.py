"""The first story: a model from anywhere becomes an endpoint that answers, and goes again."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_models import (
    booster_archive,
    create,
    csv,
    deploy,
    eventually,
    invoke,
    numbers,
    predictions,
    regressor,
    rows,
    wait_for_status,
)


def test_H01_H05_a_model_from_s3_is_deployed_answers_and_is_deleted(server: RunningServer) -> None:
    booster, features = regressor(), rows()
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    create(server, "story", booster_archive(booster))
    assert sagemaker.describe_endpoint(EndpointName="story")["EndpointStatus"] in ("Creating", "InService")
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName="story", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    described = sagemaker.describe_endpoint(EndpointName="story")
    variant = described["ProductionVariants"][0]
    assert (variant["VariantName"], variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (
        "AllTraffic",
        1,
        1.0,
    )
    assert "xgboost" in variant["DeployedImages"][0]["ResolvedImage"]
    assert invoke(server, "story", features) == pytest.approx(predictions(booster, features), rel=1e-6)

    sagemaker.delete_endpoint(EndpointName="story")
    sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="story", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    with pytest.raises(ClientError, match="Endpoint story of account 123456789012 not found"):
        runtime.invoke_endpoint(EndpointName="story", Body=b"1")


def test_H02_every_format_in_and_out_gives_the_same_numbers(server: RunningServer) -> None:
    booster, features = regressor(), rows(5)
    deploy(server, "formats", booster)
    expected = pytest.approx(predictions(booster, features), rel=1e-6)
    libsvm = "\n".join(" ".join(f"{i}:{value:.7g}" for i, value in enumerate(row)) for row in features)
    for content_type, body in (("text/csv", csv(features)), ("text/libsvm", libsvm)):
        assert numbers(_answer(server, "formats", content_type, "text/csv", body)) == expected
    scores = json.loads(_answer(server, "formats", "text/csv", "application/json", csv(features)))
    assert [found["score"] for found in scores["predictions"]] == expected
    lines = (
        _answer(server, "formats", "text/csv", "application/jsonlines", csv(features)).decode().splitlines()
    )
    assert [json.loads(line)["score"] for line in lines] == expected


def test_H02_a_response_stream_is_the_same_answer(server: RunningServer) -> None:
    booster, features = regressor(), rows(20)
    deploy(server, "streamed", booster)
    runtime = server.client("sagemaker-runtime")
    stream = runtime.invoke_endpoint_with_response_stream(
        EndpointName="streamed", ContentType="text/csv", Body=csv(features)
    )["Body"]
    body = b"".join(event["PayloadPart"]["Bytes"] for event in stream)
    assert numbers(body) == pytest.approx(predictions(booster, features), rel=1e-6)


def test_H02_what_the_container_refuses_reaches_the_caller_with_its_own_status(server: RunningServer) -> None:
    deploy(server, "refusing", regressor())
    runtime = server.client("sagemaker-runtime")
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(
            EndpointName="refusing", ContentType="application/x-unknown", Body=b"\xff\xfe"
        )
    answer: Any = refused.value.response
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 415
    assert answer["LogStreamArn"].endswith("log-group:/aws/sagemaker/Endpoints/refusing")


def test_H09_several_instances_share_the_work_of_one_endpoint(server: RunningServer) -> None:
    booster, features = regressor(), rows(1)
    deploy(server, "three", booster, instances=3)
    described = server.client("sagemaker").describe_endpoint(EndpointName="three")
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    for _ in range(30):
        assert invoke(server, "three", features) == pytest.approx(predictions(booster, features), rel=1e-6)
    server.client("sagemaker").delete_endpoint(EndpointName="three")
    eventually(lambda: _gone(server, "three"), "the endpoint to go")


def test_H09_weights_divide_the_requests_between_two_models(server: RunningServer) -> None:
    one, other, features = regressor(1), regressor(2), rows(1)
    deploy(server, "weight-a", one)
    deploy(server, "weight-b", other)
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    variants = [
        {"VariantName": name, "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
         "InitialVariantWeight": weight}
        for name, weight in (("weight-a", 3.0), ("weight-b", 1.0))
    ]  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName="weights", ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="weights", EndpointConfigName="weights")
    wait_for_status(server, "weights", "InService")
    served = {"weight-a": 0, "weight-b": 0}
    expected = {"weight-a": predictions(one, features), "weight-b": predictions(other, features)}
    for _ in range(400):
        answer = runtime.invoke_endpoint(EndpointName="weights", ContentType="text/csv", Body=csv(features))
        variant = answer["InvokedProductionVariant"]
        served[variant] += 1
        assert numbers(answer["Body"].read()) == pytest.approx(expected[variant], rel=1e-6)
    assert 235 <= served["weight-a"] <= 365, served  # 300 ± 7.5 standard deviations


def _answer(server: RunningServer, name: str, content_type: str, accept: str, body: str) -> bytes:
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Accept=accept, Body=body)
    assert answer["ContentType"].startswith(accept)
    found: bytes = answer["Body"].read()
    return found


def _gone(server: RunningServer, name: str) -> bool:
    try:
        server.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError:
        return True
    return False
