"""Models and endpoints for tests against a whole running server."""

import io
import os
import tarfile
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import psutil
import xgboost

from clary.links import instances, processes
from clary.testing.server import RunningServer

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
BUCKET = "models"
PATIENCE_S = 300.0

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str) -> T:
    """What `look` gives once it is true. The world needs time; how much is no test's business."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}; last seen: {found!r}"
        time.sleep(0.02)
    return found


def rows(count: int = 50, seed: int = 1) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.random.default_rng(seed).random((count, 7), dtype=np.float32).round(4)


def regressor(seed: int = 1) -> xgboost.Booster:
    features = rows(300, seed)
    values = 3 + 10 * features[:, 0] + 5 * features[:, 3] ** 2 - 4 * features[:, 6]
    return xgboost.train(
        {"max_depth": 4, "nthread": 1, "seed": seed}, xgboost.DMatrix(features, label=values), 10
    )


def predictions(booster: xgboost.Booster, features: Any) -> list[float]:
    return [float(value) for value in booster.predict(xgboost.DMatrix(features))]


def csv(features: Any) -> str:
    return "\n".join(",".join(f"{value:.7g}" for value in row) for row in features)


def numbers(body: bytes) -> list[float]:
    return [float(word) for word in body.decode().replace(",", "\n").split()]


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def booster_archive(booster: xgboost.Booster, form: str = "ubj") -> bytes:
    return archive({"xgboost-model": bytes(booster.save_raw(form))})


def upload(server: RunningServer, key: str, content: bytes) -> str:
    s3 = server.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    return f"s3://{BUCKET}/{key}"


def create(server: RunningServer, name: str, content: bytes, *, instances: int = 1, **container: Any) -> None:
    """Model, endpoint configuration and endpoint of one name; returns as CreateEndpoint does."""
    sagemaker = server.client("sagemaker")
    uri = upload(server, f"{name}/model.tar.gz", content)
    primary = {"Image": IMAGE, "ModelDataUrl": uri, **container}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=primary)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": instances,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def status(server: RunningServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = server.client("sagemaker").describe_endpoint(EndpointName=name)
    return found


def wait_for_status(server: RunningServer, name: str, *wanted: str) -> dict[str, Any]:
    def settled() -> dict[str, Any] | None:
        found = status(server, name)
        return found if found["EndpointStatus"] in (*wanted, "Failed") else None

    found = eventually(settled, f"{name} to be {' or '.join(wanted)}")
    assert found["EndpointStatus"] in wanted, found.get("FailureReason")
    return found


def deploy(server: RunningServer, name: str, booster: xgboost.Booster, *, instances: int = 1) -> None:
    create(server, name, booster_archive(booster), instances=instances)
    wait_for_status(server, name, "InService")


def invoke(server: RunningServer, name: str, features: Any) -> list[float]:
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=csv(features))
    return numbers(answer["Body"].read())


def processes_of(server: RunningServer) -> list[int]:
    """Every process that has to do with this server's data directory: by command line, by working directory, or in
    a session whose leader works there (sandboxed instances see another root).
    """
    marker, found = str(server.data_dir), []
    for process in psutil.process_iter():
        try:
            told = " ".join([*process.cmdline(), process.cwd(), _session_directory(process.pid)])
        except (psutil.Error, OSError):  # gone, or a stranger's
            continue
        if marker in told:
            found.append(process.pid)
    return found


def minder_of(server: RunningServer, id_: str = "i-") -> int:
    """The minder of the instance whose id begins so."""
    for directory in server.settings.instances_dir.glob(f"{id_}*"):
        minder = instances.minder_of(directory)
        if minder is not None and processes.is_alive(minder):
            return minder.pid
    raise AssertionError(f"no instance {id_} runs")


def _session_directory(pid: int) -> str:
    try:
        return psutil.Process(os.getsid(pid)).cwd()
    except (OSError, ValueError, psutil.Error):
        return ""
