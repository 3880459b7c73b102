"""S3 in process: a wire server over a blob store, and what tests ask of a client of it."""

import hashlib
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.services import s3
from clary.testing.wire import TEST_ACCOUNT, example_keyring
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from clary.wire.validate import validate

BUCKET = "bucket"
MIB = 1 << 20
BODY = b"abalone,rings\n1,2\n" * 1000
MAX_OBJECT = 64 * MIB

MODELS = ServiceModels()

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "SHA1": lambda body: hashlib.sha1(body).digest(),
    "SHA256": lambda body: hashlib.sha256(body).digest(),
    "SHA512": lambda body: hashlib.sha512(body).digest(),
}


def serve(blobs: FilesystemBlobs, max_object_bytes: int) -> WireServer:
    table = OperationTable()
    table.add("s3", *s3.resources(blobs, account=TEST_ACCOUNT, max_object_bytes=max_object_bytes))
    return WireServer(
        MODELS,
        table,
        validate=validate,
        keys=Verifier(example_keyring()),
        clock=SystemClock(),
        new_request_id=lambda: str(uuid.uuid4()),
    )


def refused(code: str, call: Callable[..., Any], *args: Any, **params: Any) -> Any:
    with pytest.raises(ClientError) as caught:
        call(*args, **params)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response


def status(response: Any) -> int:
    code: int = response["ResponseMetadata"]["HTTPStatusCode"]
    return code


def put(client: Any, key: str, body: bytes = b"x", **more: Any) -> Any:
    return client.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def get(client: Any, key: str, **more: Any) -> bytes:
    content: bytes = client.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()
    return content
