"""Uploads in parts."""

import base64
import hashlib
import io
from typing import Any

import pytest

from s3.harness import BODY, BUCKET, DIGESTS, MIB, get, put, refused, status


def begin(client: Any, **more: Any) -> dict[str, Any]:
    more = {"ChecksumAlgorithm": "CRC32", **more}
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="big", **more)
    return {"Bucket": BUCKET, "Key": "big", "UploadId": upload["UploadId"]}


def parts_of(
    client: Any, upload: dict[str, Any], bodies: dict[int, bytes], **more: Any
) -> list[dict[str, Any]]:
    parts = []
    for number, body in bodies.items():
        answer = client.upload_part(PartNumber=number, Body=body, **upload, **more)
        checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksums})
    return sorted(parts, key=lambda part: int(part["PartNumber"]))


BODIES = {2: b"b" * (5 * MIB), 1: b"a" * (5 * MIB), 7: b"last"}
WHOLE = BODIES[1] + BODIES[2] + BODIES[7]
PARTS_ETAG = hashlib.md5(b"".join(hashlib.md5(BODIES[n]).digest() for n in (1, 2, 7))).hexdigest()


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_parts_in_any_order_make_one_object(client: Any, algorithm: str, kind: str) -> None:
    upload = begin(client, ChecksumAlgorithm=algorithm, ChecksumType=kind, Metadata={"a": "b"})
    parts = parts_of(client, upload, BODIES, ChecksumAlgorithm=algorithm)
    answer = client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
    assert answer["ETag"] == f'"{PARTS_ETAG}-3"'
    found = client.get_object(Bucket=BUCKET, Key="big", ChecksumMode="ENABLED")
    assert found["Body"].read() == WHOLE  # a checksum of the whole is verified by botocore here
    assert found[f"Checksum{algorithm}"] == answer[f"Checksum{algorithm}"]
    assert found["ChecksumType"] == kind
    assert found[f"Checksum{algorithm}"].endswith("-3") == (kind == "COMPOSITE")
    assert found["Metadata"] == {"a": "b"}
    if kind == "COMPOSITE":
        raw = b"".join(DIGESTS[algorithm](BODIES[number]) for number in (1, 2, 7))
        assert found[f"Checksum{algorithm}"] == base64.b64encode(DIGESTS[algorithm](raw)).decode() + "-3"


def test_one_part_of_an_object_can_be_read(client: Any) -> None:
    upload = begin(client)
    client.complete_multipart_upload(MultipartUpload={"Parts": parts_of(client, upload, BODIES)}, **upload)
    second = client.get_object(Bucket=BUCKET, Key="big", PartNumber=2)
    assert (status(second), second["PartsCount"], second["Body"].read()) == (206, 3, BODIES[2])
    refused("InvalidPartNumber", client.get_object, Bucket=BUCKET, Key="big", PartNumber=4)
    put(client, "small", b"abc")
    assert get(client, "small", PartNumber=1) == b"abc"


def test_completing_again_says_the_same(client: Any) -> None:
    upload = begin(client)
    parts = {"Parts": parts_of(client, upload, {1: b"only"})}
    first = client.complete_multipart_upload(MultipartUpload=parts, **upload)
    again = client.complete_multipart_upload(MultipartUpload=parts, **upload)
    assert (again["ETag"], again["ChecksumCRC32"]) == (first["ETag"], first["ChecksumCRC32"])
    put(client, "big", b"another")
    refused("NoSuchUpload", client.complete_multipart_upload, MultipartUpload=parts, **upload)
    assert get(client, "big") == b"another"


def test_completions_that_do_not_fit_are_refused_and_may_be_corrected(client: Any) -> None:
    upload = begin(client)
    parts = parts_of(client, upload, {1: b"small", 2: b"last"})

    def complete(parts: list[dict[str, Any]], **more: Any) -> Any:
        return client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload, **more)

    refused("InvalidPartOrder", complete, parts[::-1])
    refused("InvalidPartOrder", complete, [parts[0], parts[0]])
    refused("EntityTooSmall", complete, parts)
    refused("InvalidPart", complete, [{**parts[0], "ETag": '"other"'}])
    refused("InvalidPart", complete, [{**parts[0], "PartNumber": 3}])
    refused("InvalidPart", complete, [{**parts[0], "ChecksumCRC32": "AAAAAA=="}])
    refused("InvalidRequest", complete, [{"PartNumber": 1, "ETag": parts[0]["ETag"]}])
    refused("MalformedXML", complete, [])
    refused("InvalidRequest", complete, [parts[0]], MpuObjectSize=4)
    refused("BadDigest", complete, [parts[0]], ChecksumCRC32="AAAAAA==-1")
    assert complete([parts[0]], MpuObjectSize=5)["ETag"].endswith('-1"')
    assert get(client, "big") == b"small"


def test_parts_and_uploads_are_refused_when_they_cannot_be(client: Any) -> None:
    upload = begin(client)
    refused("InvalidArgument", client.upload_part, PartNumber=0, Body=b"", **upload)
    refused("InvalidArgument", client.upload_part, PartNumber=10_001, Body=b"", **upload)
    refused("InvalidRequest", client.upload_part, PartNumber=1, Body=b"", ChecksumAlgorithm="SHA1", **upload)
    refused("NoSuchUpload", client.upload_part, PartNumber=1, Body=b"", **{**upload, "UploadId": "none"})
    for asked in (
        {"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"},
        {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"},
    ):
        refused("InvalidRequest", client.create_multipart_upload, Bucket=BUCKET, Key="k", **asked)


def test_a_part_can_be_copied_from_an_object(client: Any) -> None:
    put(client, "source", BODY)
    upload = begin(client)
    copied = {"CopySource": f"{BUCKET}/source", **upload}
    whole = client.upload_part_copy(PartNumber=1, **copied)["CopyPartResult"]
    assert whole["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    piece = client.upload_part_copy(PartNumber=1, CopySourceRange="bytes=5-9", **copied)["CopyPartResult"]
    refused(
        "InvalidArgument", client.upload_part_copy, PartNumber=2, CopySourceRange="bytes=0-18000", **copied
    )
    refused("InvalidArgument", client.upload_part_copy, PartNumber=2, CopySourceRange="bytes=5-", **copied)
    part = {"PartNumber": 1, "ETag": piece["ETag"], "ChecksumCRC32": piece["ChecksumCRC32"]}
    client.complete_multipart_upload(MultipartUpload={"Parts": [part]}, **upload)
    assert get(client, "big") == BODY[5:10]


def test_an_object_of_parts_copied_is_one_piece(client: Any) -> None:
    upload = begin(client)
    client.complete_multipart_upload(MultipartUpload={"Parts": parts_of(client, upload, {1: BODY})}, **upload)
    client.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/big")
    found = client.get_object(Bucket=BUCKET, Key="copy", ChecksumMode="ENABLED")
    assert found["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    assert (found["ChecksumType"], found["Body"].read()) == ("FULL_OBJECT", BODY)


def test_parts_and_uploads_are_listed_in_pages_and_aborted(client: Any) -> None:
    upload = begin(client, ChecksumAlgorithm="SHA1")
    parts_of(client, upload, {number: b"x" * number for number in (3, 1, 2)}, ChecksumAlgorithm="SHA1")
    pages = client.get_paginator("list_parts").paginate(PaginationConfig={"PageSize": 2}, **upload)
    listed = [(part["PartNumber"], part["Size"]) for page in pages for part in page["Parts"]]
    assert listed == [(1, 1), (2, 2), (3, 3)]
    first = client.list_parts(MaxParts=1, **upload)
    assert first["Parts"][0]["ChecksumSHA1"] == base64.b64encode(hashlib.sha1(b"x").digest()).decode()
    for _ in range(3):
        client.create_multipart_upload(Bucket=BUCKET, Key="é/k")
    uploads = client.get_paginator("list_multipart_uploads")
    keys = [
        one["Key"]
        for page in uploads.paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 2})
        for one in page["Uploads"]
    ]
    assert keys == ["big", "é/k", "é/k", "é/k"]
    rolled = client.list_multipart_uploads(Bucket=BUCKET, Delimiter="/")
    assert [one["Prefix"] for one in rolled["CommonPrefixes"]] == ["é/"]
    assert status(client.abort_multipart_upload(**upload)) == 204
    refused("NoSuchUpload", client.abort_multipart_upload, **upload)
    refused("NoSuchUpload", client.list_parts, **upload)


def test_the_transfer_manager_uploads_and_downloads(client: Any) -> None:
    transfer = pytest.importorskip("boto3.s3.transfer")
    config = transfer.TransferConfig(
        multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4
    )
    content = hashlib.sha256(b"seed").digest() * (11 * MIB // 32) + b"odd end"
    manager = transfer.create_transfer_manager(client, config)
    with manager:
        manager.upload(io.BytesIO(content), BUCKET, "managed").result()
        target = io.BytesIO()
        manager.download(BUCKET, "managed", target).result()
    assert target.getvalue() == content
    assert client.head_object(Bucket=BUCKET, Key="managed")["ETag"].endswith('-3"')
