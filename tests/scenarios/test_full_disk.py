"""A real disk that fills up under a real server: what is new is refused, what was acknowledged stays.

Where each single write fails is the affair of the tests called `test_every_write.py`. This one needs a small file
system of its own, which only root can mount.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_models import (
    archive,
    create,
    deploy,
    eventually,
    invoke,
    predictions,
    regressor,
    rows,
    wait_for_status,
)

BUCKET = "disk"
SIZE_MIB = 96
TRIES = 12


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = place / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield disk
    # What was killed on it may take a moment to let it go.
    eventually(
        lambda: subprocess.run(["umount", str(disk)], check=False).returncode == 0, "the end of its use"
    )


@pytest.fixture
def server(small_disk: Path) -> Iterator[RunningServer]:
    server = RunningServer(small_disk / "data")
    server.start()
    try:
        server.wait_for_environment("xgboost")
        yield server
    finally:
        (small_disk / "filler").unlink(missing_ok=True)
        server.stop()
        server.up_log.unlink()


def fill(disk: Path) -> None:
    """Takes every block that is left, also those that the server gives back meanwhile."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096) * 50:
            if os.statvfs(disk).f_bavail:
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue


def has_room(disk: Path) -> bool:
    found = os.statvfs(disk)
    return found.f_bavail > found.f_blocks // 4


def outcome(call: Any, **params: Any) -> str:
    """The error's code, or nothing when it was acknowledged."""
    try:
        call(**params)
    except ClientError as error:
        code: str = error.response["Error"]["Code"]
        return code
    return ""


def test_a_full_disk_refuses_what_is_new_and_loses_nothing(server: RunningServer, small_disk: Path) -> None:
    booster, features = regressor(), rows(3)
    expected = pytest.approx(predictions(booster, features), rel=1e-6)
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    deploy(server, "kept", booster)
    sagemaker.create_endpoint(EndpointName="old", EndpointConfigName="kept")
    wait_for_status(server, "old", "InService")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="kept", Body=b"kept")

    fill(small_disk)
    acknowledged = {"kept": b"kept"}
    for number in range(TRIES):
        body = b"%d" % number * 100_000
        code = outcome(s3.put_object, Bucket=BUCKET, Key=f"new-{number}", Body=body)
        assert code in ("", "InsufficientStorage")
        if not code:
            acknowledged[f"new-{number}"] = body
    assert outcome(s3.put_object, Bucket=BUCKET, Key="kept", Body=b"x" * (8 << 20)) == "InsufficientStorage"
    made = []
    for number in range(TRIES):
        name = f"new-{number}"
        code = outcome(sagemaker.create_endpoint, EndpointName=name, EndpointConfigName="kept")
        assert code in ("", "ServiceUnavailable")
        made += [] if code else [name]
        assert invoke(server, "kept", features) == expected
    sagemaker.delete_endpoint(EndpointName="old")
    eventually(lambda: "old" not in listed(sagemaker), "the deletion on a full disk")
    (small_disk / "filler").unlink()

    assert objects(s3) == acknowledged
    assert listed(sagemaker) == {"kept", *made}
    for name in made:
        check_end(eventually(lambda name=name: settled(sagemaker, name), f"an end of {name}"))  # type: ignore[misc]
    s3.put_object(Bucket=BUCKET, Key="kept", Body=b"anew")
    sagemaker.create_endpoint(EndpointName="after", EndpointConfigName="kept")
    wait_for_status(server, "after", "InService")

    server.stop()
    server.start()
    assert objects(server.client("s3")) == acknowledged | {"kept": b"anew"}
    for name in ("kept", "after"):
        wait_for_status(server, name, "InService")
        eventually(lambda name=name: answers(server, name, features), f"{name} to answer again")  # type: ignore[misc]
        assert invoke(server, name, features) == expected


FILLS_ITS_DISK = """
import tempfile
def model_fn(model_dir):
    return None
def input_fn(body, content_type):
    return body
def predict_fn(body, model):
    with tempfile.NamedTemporaryFile(delete=False, buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 1048576)
            except OSError:
                continue
"""


def test_H08_an_instance_that_fills_the_disk_is_ended_and_its_neighbour_answers(
    server: RunningServer, small_disk: Path
) -> None:
    booster, features = regressor(), rows(3)
    expected = pytest.approx(predictions(booster, features), rel=1e-6)
    sagemaker = server.client("sagemaker")
    deploy(server, "neighbour", booster)
    create(server, "full", archive({"code/inference.py": FILLS_ITS_DISK.encode()}))
    wait_for_status(server, "full", "InService")
    before = objects(server.client("s3"), "models")

    with pytest.raises(ClientError):
        invoke(server, "full", features)

    def told() -> str | None:
        assert invoke(server, "neighbour", features) == expected
        reasons = [event.get("reason", "") for event in events(server, "full")]
        return next((reason for reason in reasons if "disk_reserve_bytes" in reason), None)

    reason = eventually(told, "the end of the instance that filled the disk")
    assert "the most" in reason
    assert "VolumeSizeInGB" in reason
    sagemaker.delete_endpoint(EndpointName="full")
    eventually(lambda: "full" not in listed(sagemaker), "the deletion")
    eventually(lambda: has_room(small_disk), "what it wrote to be gone")
    assert objects(server.client("s3"), "models") == before
    assert [event for event in events(server, "neighbour") if "code" in event] == []


def events(server: RunningServer, name: str) -> list[dict[str, Any]]:
    """What `clary why` goes by."""
    told: Any = server.running.client().admin("GET", f"/_clary/why/{name}")
    return [{**event, **event.get("Detail", {})} for event in told["Events"]]


def listed(sagemaker: Any) -> set[str]:
    found = sagemaker.list_endpoints(MaxResults=100)["Endpoints"]
    return {endpoint["EndpointName"] for endpoint in found}


def objects(s3: Any, bucket: str = BUCKET) -> dict[str, bytes]:
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def settled(sagemaker: Any, name: str) -> Any:
    found = sagemaker.describe_endpoint(EndpointName=name)
    return found if found["EndpointStatus"] != "Creating" else None


def check_end(found: Any) -> None:
    """One that was acknowledged comes up when there is room, or has failed and says why."""
    if found["EndpointStatus"] != "InService":
        assert found["EndpointStatus"] == "Failed"
        assert "free some space" in found["FailureReason"]


def answers(server: RunningServer, name: str, features: Any) -> bool:
    try:
        return bool(invoke(server, name, features))
    except ClientError:
        return False
