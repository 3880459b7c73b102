"""Limits and failures, and requests that are signed otherwise."""

from typing import Any

import pytest
from botocore.config import Config

from clary.blobs.base import OutOfSpace
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.wire import connect
from clary.wire.heads import Head
from clary.wire.server import WireServer
from s3.harness import BUCKET, get, put, refused, serve, status


def test_an_object_above_the_limit_is_refused(
    client: Any, blobs: FilesystemBlobs, server: WireServer
) -> None:
    small = serve(blobs, 10)
    limited = connect(small).client("s3")
    put(limited, "k", b"x" * 10)
    refused("EntityTooLarge", limited.put_object, Bucket=BUCKET, Key="k", Body=b"x" * 11)
    assert get(client, "k") == b"x" * 10
    small.close()


def test_a_full_disk_is_said_plainly_and_not_retried(
    client: Any, blobs: FilesystemBlobs, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "k", b"kept")

    def full() -> Any:
        raise OutOfSpace("no space left")

    monkeypatch.setattr(blobs, "stage", full)
    patient = connect(server).client("s3", config=Config(retries={"total_max_attempts": 3}))
    refusal = refused("InsufficientStorage", patient.put_object, Bucket=BUCKET, Key="k", Body=b"new")
    assert status(refusal) == 507
    assert "Free space" in refusal["Error"]["Message"]
    assert refusal["ResponseMetadata"]["RetryAttempts"] == 0
    assert get(client, "k") == b"kept"


def test_a_presigned_url_needs_no_other_signature(server: WireServer, client: Any) -> None:
    put(client, "k", b"presigned")
    url: str = client.generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": "k"}, ExpiresIn=3600
    )
    host, _, target = url.removeprefix("http://").partition("/")
    head = Head(b"GET", f"/{target}".encode(), {b"host": host.encode()})
    response = connect(server).exchange(head, b"")
    assert response.status == 200
