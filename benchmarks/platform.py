"""The server that is measured, and the models and endpoints it is measured with."""

import io
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import xgboost

from clary.testing.server import RunningServer

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
BUCKET = "measured"


class Platform(RunningServer):
    """A `clary up` on temporary data whose XGBoost environment is ready before anything is measured."""

    def start(self) -> None:
        super().start()
        self.wait_for_environment("xgboost")

    @property
    def port(self) -> int:
        return self.settings.port

    def upload(
        self, booster: xgboost.Booster, key: str = "model.tar.gz", more: Mapping[str, bytes] | None = None
    ) -> str:
        """`more` are files beside the model."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=key, Body=archive(booster, more))
        return f"s3://{BUCKET}/{key}"

    def deploy(self, name: str, uri: str, instances: int = 1, wait: bool = True, **config: Any) -> None:
        """`config` are further members of its endpoint configuration."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": uri}
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": instances,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        if wait:
            self.wait_in_service(name)

    def wait_in_service(self, name: str, every_s: float = 0.01) -> None:
        sagemaker = self.client("sagemaker")
        while (found := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] != "InService":
            if found["EndpointStatus"] == "Failed":
                raise RuntimeError(found["FailureReason"])
            time.sleep(every_s)


def regressor(
    trees: int = 100, depth: int = 6, features: int = 8
) -> tuple[xgboost.Booster, np.ndarray[Any, Any]]:
    """Workload A of the performance pages: a regressor and 10,000 rows to ask it about."""
    random = np.random.default_rng(1)
    rows = random.random((10_000, features), dtype=np.float32).round(4)
    values = 3 + 10 * rows[:, 0] + 5 * rows[:, 3] ** 2 - 4 * rows[:, 6]
    parameters = {"max_depth": depth, "nthread": 2, "seed": 1}
    return xgboost.train(parameters, xgboost.DMatrix(rows, label=values), trees), rows


def archive(booster: xgboost.Booster, more: Mapping[str, bytes] | None = None) -> bytes:
    """model.tar.gz as the built-in algorithm writes it, one file, `xgboost-model`; and `more`."""
    files = {"xgboost-model": bytes(booster.save_raw("ubj")), **(more or {})}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
