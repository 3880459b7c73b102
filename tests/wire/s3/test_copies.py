"""Copies."""

import base64
import hashlib
from typing import Any

from s3.harness import BODY, BUCKET, DIGESTS, get, put, refused


def test_a_copy_keeps_or_replaces_what_was_said(client: Any) -> None:
    put(client, "k", BODY, Metadata={"colour": "red"}, ContentType="text/csv", ChecksumAlgorithm="SHA256")
    source = {"Bucket": BUCKET, "Key": "k"}
    answer = client.copy_object(Bucket=BUCKET, Key="kept", CopySource=source)
    assert answer["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    kept = client.head_object(Bucket=BUCKET, Key="kept", ChecksumMode="ENABLED")
    assert (kept["Metadata"], kept["ContentType"]) == ({"colour": "red"}, "text/csv")
    assert kept["ChecksumSHA256"] == answer["CopyObjectResult"]["ChecksumSHA256"]
    client.copy_object(
        Bucket=BUCKET,
        Key="new",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"a": "b"},
        ChecksumAlgorithm="CRC32",
    )
    new = client.head_object(Bucket=BUCKET, Key="new", ChecksumMode="ENABLED")
    assert (new["Metadata"], new["ContentType"]) == ({"a": "b"}, "binary/octet-stream")
    assert new["ChecksumCRC32"] == base64.b64encode(DIGESTS["CRC32"](BODY)).decode()
    assert get(client, "kept") == get(client, "new") == BODY


def test_a_copy_onto_itself_must_change_something(client: Any) -> None:
    put(client, "k", BODY)
    itself = {"Bucket": BUCKET, "Key": "k", "CopySource": f"{BUCKET}/k"}
    refused("InvalidRequest", client.copy_object, **itself)
    client.copy_object(MetadataDirective="REPLACE", ContentType="text/plain", **itself)
    assert client.head_object(Bucket=BUCKET, Key="k")["ContentType"] == "text/plain"
    assert get(client, "k") == BODY


def test_conditions_on_a_copys_source_and_what_it_cannot_be(client: Any) -> None:
    etag = put(client, "k")["ETag"]
    copy = {"Bucket": BUCKET, "Key": "c"}
    source = f"/{BUCKET}/k"
    client.copy_object(CopySource=source, CopySourceIfMatch=etag, **copy)
    refused("PreconditionFailed", client.copy_object, CopySource=source, CopySourceIfMatch='"o"', **copy)
    refused("PreconditionFailed", client.copy_object, CopySource=source, CopySourceIfNoneMatch=etag, **copy)
    refused("PreconditionFailed", client.copy_object, CopySource=source, IfNoneMatch="*", **copy)
    refused("NoSuchKey", client.copy_object, CopySource=f"{BUCKET}/none", **copy)
    refused("NoSuchBucket", client.copy_object, CopySource="none/none", **copy)
    refused("InvalidArgument", client.copy_object, CopySource=BUCKET, **copy)
    refused("NotImplemented", client.copy_object, CopySource=f"{BUCKET}/k?versionId=1", **copy)
