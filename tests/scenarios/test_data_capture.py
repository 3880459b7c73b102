"""Data capture with the real server: what was asked and answered is in the bucket, line by line."""

import json
from typing import Any

from clary.testing.server import RunningServer
from platform_models import (
    booster_archive,
    csv,
    eventually,
    numbers,
    predictions,
    regressor,
    rows,
    upload,
    wait_for_status,
)


def test_G01_every_request_of_a_captured_endpoint_is_in_its_bucket(server: RunningServer) -> None:
    booster, features = regressor(), rows(12)
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    uri = upload(server, "captured/model.tar.gz", booster_archive(booster))
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
    sagemaker.create_model(
        ModelName="captured",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/SageMakerExecutionRole",
        PrimaryContainer={"Image": image, "ModelDataUrl": uri},
    )
    variant = {
        "VariantName": "A",
        "ModelName": "captured",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(
        EndpointConfigName="captured",
        ProductionVariants=[variant],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://models/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
        },
    )
    sagemaker.create_endpoint(EndpointName="Captured", EndpointConfigName="captured")
    described = wait_for_status(server, "Captured", "InService")
    assert described["DataCaptureConfig"]["CaptureStatus"] == "Started"
    sent: dict[str, tuple[str, list[float]]] = {}
    for number, row in enumerate(features):
        body = csv(row.reshape(1, -1))
        answer = runtime.invoke_endpoint(
            EndpointName="Captured", ContentType="text/csv", Body=body, InferenceId=f"inf-{number}"
        )
        sent[f"inf-{number}"] = (body, numbers(answer["Body"].read()))
    records = eventually(lambda: _captured(server, len(sent)), "the captured requests in their bucket")
    assert set(records) == set(sent)
    for id_, (body, predicted) in sent.items():
        data = records[id_]["captureData"]
        assert (data["endpointInput"]["data"], data["endpointInput"]["encoding"]) == (body, "CSV")
        assert numbers(data["endpointOutput"]["data"].encode()) == predicted
    assert [sent[f"inf-{n}"][1][0] for n in range(12)] == predictions(booster, features)
    sagemaker.delete_endpoint(EndpointName="Captured")


def _captured(server: RunningServer, wanted: int) -> dict[str, Any] | None:
    """Inference id → record, once all are there. A kept file has its place by endpoint, variant and hour."""
    s3 = server.client("s3")
    found: dict[str, Any] = {}
    for entry in s3.list_objects_v2(Bucket="models", Prefix="capture/").get("Contents", []):
        endpoint, variant, *hour, name = entry["Key"].removeprefix("capture/").split("/")
        assert (endpoint, variant, len(hour)) == ("Captured", "A", 4) and name.endswith(".jsonl")
        text = s3.get_object(Bucket="models", Key=entry["Key"])["Body"].read().decode()
        for line in text.splitlines():
            record = json.loads(line)
            found[record["eventMetadata"]["inferenceId"]] = record
    return found if len(found) == wanted else None
