"""S3 as botocore sees it: real requests, signed and serialized by it, answered in process."""

import base64
import hashlib
import io
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from clary.blobs.base import OutOfSpace
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.services import s3
from clary.testing.wire import TEST_ACCOUNT, connect, example_keyring
from clary.wire.heads import Head
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


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesystemBlobs]:
    blobs = FilesystemBlobs(tmp_path_factory.mktemp("objects"), SystemClock(), sync=False)
    yield blobs
    blobs.close()


@pytest.fixture(scope="module")
def server(blobs: FilesystemBlobs) -> Iterator[WireServer]:
    server = serve(blobs, MAX_OBJECT)
    yield server
    server.close()


@pytest.fixture(scope="module")
def connected(server: WireServer) -> Any:
    return connect(server).client("s3")


@pytest.fixture
def client(blobs: FilesystemBlobs, connected: Any) -> Any:
    """A client of a store that holds one empty bucket."""
    blobs.clear()
    connected.create_bucket(Bucket=BUCKET)
    return connected


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


# Buckets


def test_buckets_are_made_found_listed_and_deleted(client: Any) -> None:
    client.create_bucket(Bucket="second")
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == [BUCKET, "second"]
    assert client.list_buckets(Prefix="se")["Buckets"][0]["Name"] == "second"
    assert client.head_bucket(Bucket="second")["BucketRegion"] == "us-east-1"
    assert client.get_bucket_location(Bucket="second").get("LocationConstraint") is None
    client.delete_bucket(Bucket="second")
    assert refused("404", client.head_bucket, Bucket="second")["Error"]["Message"] == "Not Found"
    refused("NoSuchBucket", client.list_objects_v2, Bucket="second")
    put(client, "k")
    assert status(refused("BucketNotEmpty", client.delete_bucket, Bucket=BUCKET)) == 409


def test_buckets_are_listed_in_pages(client: Any) -> None:
    for number in range(4):
        client.create_bucket(Bucket=f"more-{number}")
    paginator = client.get_paginator("list_buckets")
    pages = list(paginator.paginate(PaginationConfig={"PageSize": 2}))
    assert [[bucket["Name"] for bucket in page["Buckets"]] for page in pages] == [
        [BUCKET, "more-0"],
        ["more-1", "more-2"],
        ["more-3"],
    ]


def test_the_same_bucket_again_is_the_owners_affair(client: Any, server: WireServer) -> None:
    client.create_bucket(Bucket=BUCKET)
    elsewhere = connect(server, region="eu-west-1").client("s3")
    constraint = {"LocationConstraint": "eu-west-1"}
    elsewhere.create_bucket(Bucket="in-europe", CreateBucketConfiguration=constraint)
    refused(
        "BucketAlreadyOwnedByYou",
        elsewhere.create_bucket,
        Bucket="in-europe",
        CreateBucketConfiguration=constraint,
    )
    assert client.get_bucket_location(Bucket="in-europe")["LocationConstraint"] == "eu-west-1"


@pytest.mark.parametrize(
    ("region", "constraint", "code"),
    [
        ("us-east-1", "us-east-1", "InvalidLocationConstraint"),
        ("us-east-1", "nowhere", "InvalidLocationConstraint"),
        ("eu-west-1", "", "IllegalLocationConstraintException"),
        ("eu-west-1", "us-west-2", "IllegalLocationConstraintException"),
    ],
)
def test_a_location_must_fit_the_endpoint(
    server: WireServer, region: str, constraint: str, code: str
) -> None:
    client = connect(server, region=region).client("s3")
    more = {"CreateBucketConfiguration": {"LocationConstraint": constraint}} if constraint else {}
    refused(code, client.create_bucket, Bucket="somewhere", **more)


@pytest.mark.parametrize(
    "name", ["UPPER", "ab", "a..b", "10.0.0.1", "-a-b", "with_underscore", "xn--abc", "a-s3alias"]
)
def test_names_against_the_rules_are_refused(client: Any, name: str) -> None:
    refused("InvalidBucketName", client.create_bucket, Bucket=name)


def test_somebody_elses_bucket_is_denied(client: Any) -> None:
    put(client, "k")
    other = {"Bucket": BUCKET, "ExpectedBucketOwner": "000000000001"}
    refused("403", client.head_bucket, **other)
    refused("AccessDenied", client.get_object, Key="k", **other)
    refused("AccessDenied", client.put_object, Key="k", Body=b"y", **other)
    assert get(client, "k", ExpectedBucketOwner=TEST_ACCOUNT) == b"x"


# Objects


def test_an_object_comes_back_with_all_that_was_said_of_it(client: Any) -> None:
    said = {
        "Metadata": {"colour": "red", "Shape": "round"},
        "ContentType": "text/csv",
        "CacheControl": "no-store",
        "ContentDisposition": "attachment",
        "ContentLanguage": "en",
        "ContentEncoding": "identity",
        "Expires": datetime(2030, 1, 1, tzinfo=UTC),
        "ServerSideEncryption": "AES256",
    }
    answer = put(client, "a/k", BODY, **said)
    assert answer["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    assert answer["ServerSideEncryption"] == "AES256"
    for found in (client.head_object(Bucket=BUCKET, Key="a/k"), client.get_object(Bucket=BUCKET, Key="a/k")):
        assert found["Metadata"] == {"colour": "red", "shape": "round"}
        assert {name: found[name] for name in said if name != "Metadata"} == {
            name: value for name, value in said.items() if name != "Metadata"
        }
        assert found["ContentLength"] == len(BODY)
        assert found["ETag"] == answer["ETag"]
        assert abs(datetime.now(UTC) - found["LastModified"]) < timedelta(minutes=5)
    assert get(client, "a/k") == BODY


def test_what_is_missing_has_the_right_name(client: Any) -> None:
    assert status(refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="none")) == 404
    assert refused("404", client.head_object, Bucket=BUCKET, Key="none")["Error"]["Message"] == "Not Found"
    refused("NoSuchBucket", client.get_object, Bucket="none", Key="none")
    refused("NoSuchBucket", client.put_object, Bucket="none", Key="none", Body=b"")


@pytest.mark.parametrize(
    "key",
    [
        "a b+c=d&é/中.txt",
        "../../etc/passwd",
        "..",
        "a//b",
        "/lead",
        "trail/",
        "%41",
        "a\tb",
        "~",
        "*'()!",
        "a?b#c",
    ],
)
def test_odd_keys_are_kept_as_they_are(client: Any, key: str) -> None:
    put(client, key, key.encode())
    assert get(client, key) == key.encode()
    assert [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == [key]
    client.copy_object(Bucket=BUCKET, Key=key + "-copy", CopySource={"Bucket": BUCKET, "Key": key})
    deleted = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})
    assert deleted["Deleted"] == [{"Key": key}]
    assert [one["Key"] for one in client.list_objects(Bucket=BUCKET)["Contents"]] == [key + "-copy"]


def test_a_key_may_have_1024_bytes_and_no_more(client: Any) -> None:
    put(client, "é" * 512)
    refused("KeyTooLongError", client.put_object, Bucket=BUCKET, Key="é" * 512 + "x", Body=b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-", 5, 17999),
        ("bytes=-7", 17993, 17999),
        ("bytes=100-99999", 100, 17999),
    ],
)
def test_a_range_is_a_piece(client: Any, asked: str, first: int, last: int) -> None:
    put(client, "k", BODY)
    found = client.get_object(Bucket=BUCKET, Key="k", Range=asked, ChecksumMode="ENABLED")
    assert status(found) == 206
    assert found["Body"].read() == BODY[first : last + 1]
    assert found["ContentRange"] == f"bytes {first}-{last}/{len(BODY)}"
    assert status(client.head_object(Bucket=BUCKET, Key="k", Range=asked)) == 206


def test_ranges_that_cannot_be_or_mean_nothing(client: Any) -> None:
    put(client, "k", BODY)
    put(client, "empty", b"")
    assert (
        status(refused("InvalidRange", client.get_object, Bucket=BUCKET, Key="k", Range="bytes=18000-"))
        == 416
    )
    refused("InvalidRange", client.get_object, Bucket=BUCKET, Key="k", Range="bytes=-0")
    refused("InvalidRange", client.get_object, Bucket=BUCKET, Key="empty", Range="bytes=0-")
    for nonsense in ("bytes=5-1", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert status(client.get_object(Bucket=BUCKET, Key="k", Range=nonsense)) == 200


def test_conditions_on_reading(client: Any) -> None:
    etag = put(client, "k")["ETag"]
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    assert get(client, "k", IfMatch=etag, IfUnmodifiedSince=past) == b"x"
    assert get(client, "k", IfNoneMatch='"other"', IfModifiedSince=future) == b"x"
    read = {"Bucket": BUCKET, "Key": "k"}
    assert status(refused("PreconditionFailed", client.get_object, IfMatch='"other"', **read)) == 412
    refused("PreconditionFailed", client.get_object, IfUnmodifiedSince=past, **read)
    refused("304", client.get_object, IfNoneMatch=etag, **read)
    refused("304", client.get_object, IfModifiedSince=future, **read)
    refused("304", client.head_object, IfNoneMatch=f'"a", {etag}', **read)
    refused("412", client.head_object, IfMatch='"other"', **read)


def test_conditions_on_writing(client: Any) -> None:
    etag = put(client, "k", b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", client.put_object, Bucket=BUCKET, Key="k", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", client.put_object, Bucket=BUCKET, Key="k", Body=b"2", IfMatch='"other"')
    refused("NoSuchKey", client.put_object, Bucket=BUCKET, Key="none", Body=b"2", IfMatch=etag)
    assert get(client, "k") == b"1"
    put(client, "k", b"2", IfMatch=etag)
    assert get(client, "k") == b"2"


def test_the_answers_headers_can_be_overridden(client: Any) -> None:
    put(client, "k", ContentType="text/csv")
    found = client.get_object(
        Bucket=BUCKET,
        Key="k",
        ResponseContentType="text/plain",
        ResponseContentDisposition="attachment",
        ResponseExpires=datetime(2031, 1, 1, tzinfo=UTC),
    )
    assert (found["ContentType"], found["ContentDisposition"]) == ("text/plain", "attachment")
    assert found["Expires"] == datetime(2031, 1, 1, tzinfo=UTC)


def test_deleting_may_be_repeated(client: Any) -> None:
    put(client, "k")
    for _ in range(2):
        assert status(client.delete_object(Bucket=BUCKET, Key="k")) == 204
    refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="k")


def test_many_are_deleted_at_once_quietly_or_not(client: Any) -> None:
    for key in ("a", "b", "c"):
        put(client, key)
    told = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}, {"Key": "none"}]})
    assert told["Deleted"] == [{"Key": "a"}, {"Key": "none"}]
    quiet = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet
    versions = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "c", "VersionId": "v1"}]})
    assert versions["Errors"][0]["Code"] == "NotImplemented"
    assert get(client, "c") == b"x"


@pytest.mark.parametrize(
    "member",
    [
        {"ACL": "public-read"},
        {"GrantRead": "id=1"},
        {"StorageClass": "GLACIER"},
        {"ServerSideEncryption": "aws:kms:dsse"},
        {"SSEKMSKeyId": "key"},
        {"WebsiteRedirectLocation": "/x"},
        {"ObjectLockMode": "GOVERNANCE"},
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: Any, member: dict[str, str]) -> None:
    refusal = refused("NotImplemented", client.put_object, Bucket=BUCKET, Key="k", Body=b"", **member)
    assert status(refusal) == 501
    assert next(iter(member)) in refusal["Error"]["Message"]
    refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="k")


def test_metadata_has_a_limit(client: Any) -> None:
    refused(
        "MetadataTooLarge", client.put_object, Bucket=BUCKET, Key="k", Body=b"", Metadata={"a": "x" * 2048}
    )


# Checksums

_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "SHA1": lambda body: hashlib.sha1(body).digest(),
    "SHA256": lambda body: hashlib.sha256(body).digest(),
    "SHA512": lambda body: hashlib.sha512(body).digest(),
}


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
    if algorithm in _DIGESTS:
        assert found[f"Checksum{algorithm}"] == base64.b64encode(_DIGESTS[algorithm](BODY)).decode()
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


# Copies


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
    assert new["ChecksumCRC32"] == base64.b64encode(_DIGESTS["CRC32"](BODY)).decode()
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


# Listing


def test_pages_of_both_kinds_give_every_key_once_in_order(client: Any) -> None:
    keys = sorted([f"p/{number:02}" for number in range(25)] + ["é", "中", "a b", "p+q"], key=str.encode)
    for key in keys:
        put(client, key)
    for operation in ("list_objects_v2", "list_objects"):
        pages = client.get_paginator(operation).paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 4})
        assert [one["Key"] for page in pages for one in page["Contents"]] == keys


def test_common_prefixes_are_paged_with_the_keys(client: Any) -> None:
    for key in ("a/1", "a/2", "b", "c/1", "d/1", "d/2"):
        put(client, key)
    for operation in ("list_objects_v2", "list_objects"):
        paginator = client.get_paginator(operation)
        for size in (1, 2, 3, 10):
            found = []
            for page in paginator.paginate(Bucket=BUCKET, Delimiter="/", PaginationConfig={"PageSize": size}):
                found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
                found += [one["Key"] for one in page.get("Contents", [])]
            assert sorted(found) == ["a/", "b", "c/", "d/"]
    below = client.list_objects_v2(Bucket=BUCKET, Prefix="d/", Delimiter="/", StartAfter="d/1")
    assert [one["Key"] for one in below["Contents"]] == ["d/2"]
    assert (below["KeyCount"], below["MaxKeys"], below["IsTruncated"]) == (1, 1000, False)


def test_a_listings_edges(client: Any) -> None:
    put(client, "k")
    nothing = client.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)
    assert client.list_objects_v2(Bucket=BUCKET, MaxKeys=5000)["MaxKeys"] == 1000
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, MaxKeys=-1)
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, ContinuationToken="no token")
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, EncodingType="html")
    owned = client.list_objects_v2(Bucket=BUCKET, FetchOwner=True)["Contents"][0]
    assert len(owned["Owner"]["ID"]) == 64


# Uploads in parts


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
        raw = b"".join(_DIGESTS[algorithm](BODIES[number]) for number in (1, 2, 7))
        assert found[f"Checksum{algorithm}"] == base64.b64encode(_DIGESTS[algorithm](raw)).decode() + "-3"


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


# Limits and failures


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
        "get_object", Params={"Bucket": BUCKET, "Key": "k"}, ExpiresIn=60
    )
    host, _, target = url.removeprefix("http://").partition("/")
    head = Head(b"GET", f"/{target}".encode(), {b"host": host.encode()})
    response = connect(server).exchange(head, b"")
    assert response.status == 200
