"""Objects one by one: what is kept of them, pieces, conditions, deletions."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3.harness import BODY, BUCKET, get, put, refused, status


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
