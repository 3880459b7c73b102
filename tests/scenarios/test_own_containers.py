"""A user brings an image of their own: created, deployed, called and deleted like any other model."""

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from clary.testing.server import RunningServer
from engines.harness import IMAGE, TestEngine, running_engine, why_none

ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    if reason := why_none():
        pytest.skip(reason)
    with running_engine() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: TestEngine) -> Iterator[RunningServer]:
    variables = {"CLARY_CONTAINER_ENGINE": str(engine.socket), "CLARY_PREWARM": ""}
    with RunningServer(None, environment=variables) as running:
        yield running
    engine.until_empty()  # `clary down` leaves none


def model_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("weights.txt")
        entry.size = 7
        tar.addfile(entry, io.BytesIO(b"weights"))
    return buffer.getvalue()


def deploy(server: RunningServer, name: str, **container: Any) -> Any:
    """DescribeEndpoint when it has settled."""
    sagemaker = server.client("sagemaker")
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE, **container}
    )
    variant = {
        "VariantName": "a",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    while (found := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] == "Creating":
        pass  # held by the server until there is something to tell
    return found


def invoke(server: RunningServer, name: str, **what: object) -> Any:
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="application/json", Body=json.dumps(what)
    )
    return json.loads(answer["Body"].read())


def test_H04_an_image_of_ones_own_serves_its_model_with_the_role_of_its_model(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="own")
    s3.put_object(Bucket="own", Key="model.tar.gz", Body=model_archive())
    found = deploy(server, "own", ModelDataUrl="s3://own/model.tar.gz", Environment={"MINE": "1"})
    assert found["EndpointStatus"] == "InService", found
    [image] = found["ProductionVariants"][0]["DeployedImages"]
    assert (image["SpecifiedImage"], "my-model@sha256:" in image["ResolvedImage"]) == (IMAGE, True)
    assert invoke(server, "own", read="/opt/ml/model/weights.txt") == "weights"
    assert invoke(server, "own", environ="MINE") == "1"
    url = invoke(server, "own", environ="AWS_CONTAINER_CREDENTIALS_FULL_URI")
    given = json.loads(invoke(server, "own", fetch=f"TOKEN{url}"))
    assert given["RoleArn"] == ROLE
    assert "ContainerEngine" in server.status()["Parts"]


def test_H04_serving_goes_on_while_the_engine_is_away(server: RunningServer, engine: TestEngine) -> None:
    engine.stop()
    try:
        assert invoke(server, "own", environ="MINE") == "1"
    finally:
        engine.start()
    assert invoke(server, "own", environ="MINE") == "1"


def test_H04_a_container_that_fails_says_why(server: RunningServer) -> None:
    found = deploy(server, "broken", Environment={"DO": "exit:5"})
    assert found["EndpointStatus"] == "Failed"
    assert "exited with code 5" in found["FailureReason"]
    assert "DO exit" in found["FailureReason"]  # what it printed


def test_H04_an_image_of_aws_that_is_not_here_is_refused_by_name(server: RunningServer) -> None:
    sagemaker = server.client("sagemaker")
    image = "111122223333.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    with pytest.raises(sagemaker.exceptions.ClientError) as refused:
        sagemaker.create_model(ModelName="absent", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image})
    assert f"Requested image {image} not found: nothing is pulled from AWS here" in str(refused.value)


def test_H04_a_container_that_ends_in_a_request_is_a_503(server: RunningServer) -> None:
    sagemaker = server.client("sagemaker")
    runtime = server.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ClientError) as ended:
        runtime.invoke_endpoint(EndpointName="own", ContentType="application/json", Body=b'{"end": 7}')
    assert ended.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert sagemaker.describe_endpoint(EndpointName="own")["EndpointStatus"] == "InService"
