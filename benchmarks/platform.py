"""The server that is measured, and the models and endpoints it is measured with."""

import io
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import xgboost

from clary.domain.instances import InstanceStatus
from clary.links import hosts
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
        return self.upload_archive(archive({**model_files(booster), **(more or {})}), key)

    def upload_archive(self, data: bytes, key: str) -> str:
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def deploy(
        self,
        name: str,
        uri: str,
        instances: int = 1,
        wait: bool = True,
        image: str = IMAGE,
        variables: Mapping[str, str] | None = None,
        instance_type: str = "ml.m5.large",
        **config: Any,
    ) -> None:
        """`config` are further members of its endpoint configuration."""
        sagemaker = self.client("sagemaker")
        container = {"Image": image, "ModelDataUrl": uri, "Environment": dict(variables or {})}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        self.serve(name, instances, wait, instance_type, **config)

    def serve(
        self,
        name: str,
        instances: int = 1,
        wait: bool = True,
        instance_type: str = "ml.m5.large",
        **config: Any,
    ) -> None:
        """An endpoint called like its model, which is there."""
        sagemaker = self.client("sagemaker")
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": instance_type,
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

    def remove(self, name: str) -> None:
        """Deletes the endpoint and waits until it is gone."""
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=name)
        while True:
            try:
                sagemaker.describe_endpoint(EndpointName=name)
            except sagemaker.exceptions.ClientError:
                return
            time.sleep(0.02)

    def ready_instances(self) -> list[InstanceStatus]:
        """What the host says of the instances that serve."""
        client = hosts.HostClient(self.settings.host_socket)
        found = client.call("list", hosts.ListInstances(), list[InstanceStatus])
        client.close()
        return [status for status in found if status.phase == "ready"]

    def only_instance(self) -> InstanceStatus:
        ready = self.ready_instances()
        assert len(ready) == 1, ready
        return ready[0]


def start_to_ping_s(instance: InstanceStatus) -> float:
    """What the host saw: from the launch, before the fork, to the first good ping."""
    assert instance.started_at is not None
    assert instance.ready_at is not None
    return instance.ready_at - instance.started_at


def regressor(
    trees: int = 100, depth: int = 6, features: int = 8
) -> tuple[xgboost.Booster, np.ndarray[Any, Any]]:
    """Workload A of the performance pages: a regressor and 10,000 rows to ask it about."""
    random = np.random.default_rng(1)
    rows = random.random((10_000, features), dtype=np.float32).round(4)
    values = 3 + 10 * rows[:, 0] + 5 * rows[:, 3] ** 2 - 4 * rows[:, 6]
    parameters = {"max_depth": depth, "nthread": 2, "seed": 1}
    return xgboost.train(parameters, xgboost.DMatrix(rows, label=values), trees), rows


def model_files(booster: xgboost.Booster) -> dict[str, bytes]:
    """As the built-in algorithm writes its model."""
    return {"xgboost-model": bytes(booster.save_raw("ubj"))}


def archive(files: Mapping[str, bytes]) -> bytes:
    """model.tar.gz with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
