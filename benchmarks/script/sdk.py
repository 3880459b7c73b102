"""`sdk.py ARCHIVE ROW CALLS FOUND`: deploys with the SageMaker SDK 2, then asks by its Predictor and by boto3 in turn.

Run by a Python that has the SDK, in the environment of `clary run`. The SDK is unmodified; `time.sleep` is watched, so
that what it sleeps of its own accord is known. All of it goes to the file FOUND as JSON: the SDK prints, too.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import sagemaker  # type: ignore[import-not-found]
from sagemaker.serializers import CSVSerializer  # type: ignore[import-not-found]

slept: list[float] = []
_sleep = time.sleep


def watched_sleep(seconds: float) -> None:
    slept.append(seconds)
    _sleep(seconds)


def main(archive: str, row: str, calls: int, found: Path) -> None:
    session, role = sagemaker.Session(), sagemaker.get_execution_role()
    image = sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, "1.7-1")
    data = session.upload_data(archive, key_prefix="measured")
    model = sagemaker.Model(image, data, role, predictor_cls=sagemaker.Predictor)
    with patch("time.sleep", watched_sleep):
        began = time.perf_counter()
        predictor = model.deploy(1, "ml.m5.large", serializer=CSVSerializer())
        deploy_s = time.perf_counter() - began
    values = [float(value) for value in row.split(",")]
    sdk_ms, boto3_ms = in_turn(predictor, values, calls)
    predictor.delete_endpoint()
    answer = {
        "version": sagemaker.__version__,
        "boto3": boto3.__version__,
        "deploy_s": deploy_s,
        "slept": slept,
    }
    found.write_text(json.dumps({**answer, "sdk_ms": sdk_ms, "boto3_ms": boto3_ms}))


def in_turn(predictor: Any, values: list[float], calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, the first of a pair changing; both make their CSV of the same numbers."""
    client, name = boto3.client("sagemaker-runtime"), predictor.endpoint_name

    def by_boto3() -> bytes:
        body = ",".join(map(str, values))
        answer = client.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=body)
        content: bytes = answer["Body"].read()
        return content

    def by_sdk() -> bytes:
        content: bytes = predictor.predict(values)
        return content

    for _ in range(50):
        if by_sdk() != by_boto3():
            raise RuntimeError("the SDK's answer is not boto3's")
    took: dict[Callable[[], bytes], list[float]] = {by_sdk: [], by_boto3: []}
    for number in range(calls):
        for ask in (by_sdk, by_boto3) if number % 2 else (by_boto3, by_sdk):
            began = time.perf_counter()
            ask()
            took[ask].append((time.perf_counter() - began) * 1e3)
    return took[by_sdk], took[by_boto3]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
