"""Checksums: verified, kept, told, in headers and in trailers."""

import base64
import hashlib
import zlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.blobs.filesystem import FilesystemBlobs
from s3.harness import BODY, BUCKET, DIGESTS, get, put, refused, status


@pytest.mark.parametrize(
    "algorithm",
    ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "XXHASH64", "XXHASH3", "XXHASH128"],
)
def test_a_checksum_is_verified_kept_and_told(client: Any, algorithm: str) -> None:
    answer = put(client, "k", BODY, ChecksumAlgorithm=algorithm)
    found = client.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert found["Body"].read() == BODY  # which botocore holds against the checksum itself
    assert found[f"Checksum{algorithm}"] == answer[f"Checksum{algorithm}"]
    assert found["ChecksumType"] == "FULL_OBJECT"
    if algorithm in DIGESTS:
        assert found[f"Checksum{algorithm}"] == base64.b64encode(DIGESTS[algorithm](BODY)).decode()
    hidden = client.head_object(Bucket=BUCKET, Key="k")
    assert f"Checksum{algorithm}" not in hidden
    listed = client.list_objects_v2(Bucket=BUCKET)["Contents"][0]
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == ([algorithm], "FULL_OBJECT")


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(client: Any) -> None:
    write = {"Bucket": BUCKET, "Key": "k", "Body": BODY}
    wrong = base64.b64encode(b"\0\0\0\1").decode()
    refused("BadDigest", client.put_object, ChecksumCRC32=wrong, **write)
    refused("InvalidRequest", client.put_object, ChecksumCRC32="short", **write)
    refused("InvalidRequest", client.put_object, ChecksumCRC32=wrong, ChecksumSHA1="x", **write)
    refused("BadDigest", client.put_object, ContentMD5=base64.b64encode(bytes(16)).decode(), **write)
    refused("InvalidDigest", client.put_object, ContentMD5="nonsense", **write)
    refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="k")
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    client.put_object(ContentMD5=right, **write)


def test_an_upload_without_a_checksum_gets_one(blobs: FilesystemBlobs, client: Any) -> None:
    client.meta.events.register("before-call.s3.PutObject", _without_checksum)
    put(client, "k", BODY)
    client.meta.events.unregister("before-call.s3.PutObject", _without_checksum)
    kept = blobs.head(BUCKET, "k").checksum
    assert kept is not None and kept.algorithm == "CRC64NVME"
    assert get(client, "k", ChecksumMode="ENABLED") == BODY


def _without_checksum(params: dict[str, Any], **_: Any) -> None:
    for name in [
        name for name in params["headers"] if name.lower().startswith(("x-amz-checksum", "x-amz-sdk-ch"))
    ]:
        del params["headers"][name]
    params["context"].pop("checksum", None)


def test_a_body_with_a_trailer_is_unwrapped_and_verified(client: Any) -> None:
    crc = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big"))
    assert _put_framed(client, b"0000 nonsense") == 400
    assert _put_framed(client, b"AAAAAA==") == 400
    refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="framed")
    assert _put_framed(client, crc) == 200
    found = client.get_object(Bucket=BUCKET, Key="framed", ChecksumMode="ENABLED")
    assert found["Body"].read() == BODY
    assert found["ChecksumCRC32"] == crc.decode()
    assert found["ContentEncoding"] == "gzip"


def _put_framed(client: Any, crc: bytes) -> int:
    """A PutObject whose body is framed by hand, as clients frame it over TLS."""
    framed = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(BODY), BODY, crc)

    def frame(request: Any, **_: Any) -> None:
        # What makes botocore sign the body as STREAMING-UNSIGNED-PAYLOAD-TRAILER.
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        request.headers["X-Amz-Decoded-Content-Length"] = str(len(BODY))
        request.headers["Content-Encoding"] = "gzip,aws-chunked"
        request.data = framed

    client.meta.events.register("before-call.s3.PutObject", _without_checksum)
    client.meta.events.register_last("before-sign.s3.PutObject", frame)
    try:
        return status(client.put_object(Bucket=BUCKET, Key="framed", Body=b"replaced"))
    except ClientError as error:
        return status(error.response)
    finally:
        client.meta.events.unregister("before-call.s3.PutObject", _without_checksum)
        client.meta.events.unregister("before-sign.s3.PutObject", frame)
