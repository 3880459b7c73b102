"""S3 beyond putting and getting, as botocore sees it: tags, conditions, probes, virtual hosts, forms."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from urllib3.filepost import encode_multipart_formdata

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.services import s3
from clary.testing.wire import TEST_ACCOUNT, TEST_ROOT, Clients, connect, example_keyring
from clary.wire.messages import Request, Response
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from clary.wire.validate import validate

BUCKET = "bucket"
MODELS = ServiceModels()


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesystemBlobs]:
    blobs = FilesystemBlobs(tmp_path_factory.mktemp("objects"), SystemClock(), sync=False)
    yield blobs
    blobs.close()


@pytest.fixture(scope="module")
def server(blobs: FilesystemBlobs) -> Iterator[WireServer]:
    table = OperationTable()
    table.add("s3", *s3.resources(blobs, account=TEST_ACCOUNT, max_object_bytes=1 << 24))
    server = WireServer(
        MODELS,
        table,
        validate=validate,
        keys=Verifier(example_keyring()),
        clock=SystemClock(),
        new_request_id=lambda: str(uuid.uuid4()),
        s3_base_domain="localhost",
    )
    yield server
    server.close()


@pytest.fixture(scope="module")
def clients(server: WireServer) -> Clients:
    return connect(server)


@pytest.fixture
def client(blobs: FilesystemBlobs, clients: Clients) -> Any:
    blobs.clear()
    client = clients.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def refused(code: str, call: Callable[..., Any], **params: Any) -> Any:
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response


def tags(pairs: Mapping[str, str]) -> dict[str, Any]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in pairs.items()]}


# Tags


def test_an_objects_tags_come_with_it_change_and_go(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x", Tagging="stage=dev&owner=a%20b")
    assert client.head_object(Bucket=BUCKET, Key="k")["TagCount"] == 2
    found = client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"]
    assert found == tags({"stage": "dev", "owner": "a b"})["TagSet"]
    before = client.head_object(Bucket=BUCKET, Key="k")["LastModified"]
    client.put_object_tagging(Bucket=BUCKET, Key="k", Tagging=tags({"only": "ünï"}))
    assert client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == tags({"only": "ünï"})["TagSet"]
    assert client.head_object(Bucket=BUCKET, Key="k")["LastModified"] == before
    client.delete_object_tagging(Bucket=BUCKET, Key="k")
    assert client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == []
    assert "TagCount" not in client.get_object(Bucket=BUCKET, Key="k")
    refused("NoSuchKey", client.get_object_tagging, Bucket=BUCKET, Key="none")
    refused("NoSuchKey", client.put_object_tagging, Bucket=BUCKET, Key="none", Tagging=tags({}))


def test_a_copy_keeps_or_replaces_tags(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x", Tagging="a=1")
    source = f"{BUCKET}/k"
    client.copy_object(Bucket=BUCKET, Key="kept", CopySource=source, MetadataDirective="REPLACE")
    client.copy_object(Bucket=BUCKET, Key="new", CopySource=source, TaggingDirective="REPLACE", Tagging="b=2")
    client.copy_object(Bucket=BUCKET, Key="bare", CopySource=source, TaggingDirective="REPLACE")
    found = [client.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"] for key in ("kept", "new", "bare")]
    assert found == [tags(pairs)["TagSet"] for pairs in ({"a": "1"}, {"b": "2"}, {})]


def test_an_upload_in_parts_gives_its_tags_to_the_object(client: Any) -> None:
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="k", Tagging="a=1")["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    client.complete_multipart_upload(
        Bucket=BUCKET,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == tags({"a": "1"})["TagSet"]


def test_a_buckets_tags(client: Any) -> None:
    refused("NoSuchTagSet", client.get_bucket_tagging, Bucket=BUCKET)
    client.put_bucket_tagging(Bucket=BUCKET, Tagging=tags({"team": "ml"}))
    assert client.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == tags({"team": "ml"})["TagSet"]
    client.delete_bucket_tagging(Bucket=BUCKET)
    refused("NoSuchTagSet", client.get_bucket_tagging, Bucket=BUCKET)
    client.put_bucket_tagging(Bucket=BUCKET, Tagging=tags({"team": "ml"}))
    client.delete_bucket(Bucket=BUCKET)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"Tags": [{"Key": "new", "Value": ""}]})
    assert client.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == tags({"new": ""})["TagSet"]


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ({f"k{n}": "v" for n in range(11)}, "BadRequest"),
        ({"k" * 129: "v"}, "InvalidTag"),
        ({"k": "v" * 257}, "InvalidTag"),
        ({"aws:k": "v"}, "InvalidTag"),
        ({"k": "a<b"}, "InvalidTag"),
    ],
)
def test_tags_against_the_rules_are_refused(client: Any, pairs: dict[str, str], code: str) -> None:
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    refused(code, client.put_object_tagging, Bucket=BUCKET, Key="k", Tagging=tags(pairs))
    assert client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == []


def test_a_tag_twice_and_a_header_that_is_no_query(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    twice = {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
    refused("InvalidTag", client.put_object_tagging, Bucket=BUCKET, Key="k", Tagging=twice)
    refused("InvalidArgument", client.put_object, Bucket=BUCKET, Key="k", Body=b"", Tagging="just text")


# Conditions


def test_a_deletion_may_have_a_condition(client: Any) -> None:
    etag = client.put_object(Bucket=BUCKET, Key="k", Body=b"x")["ETag"]
    refused("PreconditionFailed", client.delete_object, Bucket=BUCKET, Key="k", IfMatch='"other"')
    client.delete_object(Bucket=BUCKET, Key="k", IfMatch=etag)
    refused("NoSuchKey", client.delete_object, Bucket=BUCKET, Key="k", IfMatch=etag)
    refused("NoSuchKey", client.delete_object, Bucket=BUCKET, Key="k", IfMatch="*")
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    client.delete_object(Bucket=BUCKET, Key="k", IfMatch="*")
    assert "Contents" not in client.list_objects_v2(Bucket=BUCKET)


def test_deletions_of_many_may_have_conditions_of_their_own(client: Any) -> None:
    etag = client.put_object(Bucket=BUCKET, Key="a", Body=b"a")["ETag"]
    for key in ("b", "c"):
        client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    wanted = [{"Key": "a", "ETag": etag}, {"Key": "b", "ETag": etag}, {"Key": "c"}]
    answer = client.delete_objects(Bucket=BUCKET, Delete={"Objects": wanted})
    assert [one["Key"] for one in answer["Deleted"]] == ["a", "c"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("b", "PreconditionFailed")]
    assert [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["b"]


def test_a_copy_may_have_a_condition_on_its_target(client: Any) -> None:
    etag = client.put_object(Bucket=BUCKET, Key="k", Body=b"x")["ETag"]
    copy = {"Bucket": BUCKET, "Key": "copy", "CopySource": f"{BUCKET}/k"}
    client.copy_object(**copy, IfNoneMatch="*")
    refused("PreconditionFailed", client.copy_object, **copy, IfNoneMatch="*")
    refused("PreconditionFailed", client.copy_object, **copy, IfMatch='"other"')
    client.copy_object(**copy, IfMatch=etag)


def test_a_list_of_deletions_is_held_against_its_digest(client: Any, clients: Clients) -> None:
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    damaged = clients.client("s3")
    wrong = base64.b64encode(hashlib.md5(b"something else", usedforsecurity=False).digest()).decode()

    def set_md5(request: Any, **_: Any) -> None:
        for name in [name for name in request.headers if "checksum" in name.lower()]:
            del request.headers[name]
        request.headers["Content-MD5"] = wrong

    damaged.meta.events.register("before-sign.s3.DeleteObjects", set_md5)
    refused("BadDigest", damaged.delete_objects, Bucket=BUCKET, Delete={"Objects": [{"Key": "k"}]})
    assert client.head_object(Bucket=BUCKET, Key="k")["ContentLength"] == 1
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "k"}]}, ChecksumAlgorithm="SHA256")
    refused("404", client.head_object, Bucket=BUCKET, Key="k")


# What clients look at before they act


def test_probes_of_a_bucket_where_nothing_is_configured(client: Any) -> None:
    assert "Status" not in client.get_bucket_versioning(Bucket=BUCKET)
    assert client.get_bucket_request_payment(Bucket=BUCKET)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=BUCKET)
    assert "Status" not in client.get_bucket_accelerate_configuration(Bucket=BUCKET)
    assert "TopicConfigurations" not in client.get_bucket_notification_configuration(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    for acl in (client.get_bucket_acl(Bucket=BUCKET), client.get_object_acl(Bucket=BUCKET, Key="k")):
        assert [grant["Permission"] for grant in acl["Grants"]] == ["FULL_CONTROL"]
        assert acl["Grants"][0]["Grantee"]["ID"] == acl["Owner"]["ID"]
        assert acl["Grants"][0]["Grantee"]["Type"] == "CanonicalUser"


@pytest.mark.parametrize(
    ("probe", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_policy_status", "NoSuchBucketPolicy"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
    ],
)
def test_what_is_not_configured_is_absent(client: Any, probe: str, code: str) -> None:
    refused(code, getattr(client, probe), Bucket=BUCKET)
    refused("NoSuchBucket", getattr(client, probe), Bucket="nothing-here")


def test_configuring_is_refused_by_name(client: Any) -> None:
    answer = refused(
        "NotImplemented",
        client.put_bucket_versioning,
        Bucket=BUCKET,
        VersioningConfiguration={"Status": "Enabled"},
    )
    assert "PutBucketVersioning is not supported by this server" in answer["Error"]["Message"]


def test_every_object_has_one_version(client: Any) -> None:
    for key in ("a", "b", "c"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=BUCKET, PaginationConfig={"PageSize": 2}
    )
    found = [version for page in pages for version in page["Versions"]]
    assert [(one["Key"], one["VersionId"], one["IsLatest"]) for one in found] == [
        (key, "null", True) for key in ("a", "b", "c")
    ]
    gone = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": gone})
    assert "Versions" not in client.list_object_versions(Bucket=BUCKET)


def test_an_objects_attributes(client: Any) -> None:
    put = client.put_object(Bucket=BUCKET, Key="k", Body=b"xyz", ChecksumAlgorithm="SHA256")
    every = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    found = client.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=every)
    assert found["ETag"] == put["ETag"].strip('"')
    assert (found["ObjectSize"], found["StorageClass"]) == (3, "STANDARD")
    assert found["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in found
    only = client.get_object_attributes(Bucket=BUCKET, Key="k", ObjectAttributes=["ObjectSize"])
    assert only["ObjectSize"] == 3 and "ETag" not in only
    refused("InvalidArgument", client.get_object_attributes, Bucket=BUCKET, Key="k", ObjectAttributes=["X"])


def test_the_parts_of_an_object_are_told_in_pages(client: Any) -> None:
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"]
    bodies = [b"a" * (5 << 20), b"b" * (5 << 20), b"c"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=number, Body=body)[
                "ETag"
            ],
        }
        for number, body in enumerate(bodies, 1)
    ]
    client.complete_multipart_upload(
        Bucket=BUCKET, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    asked = {"Bucket": BUCKET, "Key": "k", "ObjectAttributes": ["ObjectParts"], "MaxParts": 2}
    first = client.get_object_attributes(**asked)["ObjectParts"]
    assert (first["TotalPartsCount"], first["IsTruncated"]) == (3, True)
    second = client.get_object_attributes(**asked, PartNumberMarker=first["NextPartNumberMarker"])[
        "ObjectParts"
    ]
    assert [one["Size"] for one in first["Parts"] + second["Parts"]] == [len(body) for body in bodies]
    assert second["IsTruncated"] is False


# A bucket in the host's name


def test_S3_a_bucket_may_stand_in_the_host_name(client: Any, clients: Clients) -> None:
    virtual = clients.client(
        "s3", config=Config(s3={"addressing_style": "virtual"}), endpoint_url="http://localhost:8470"
    )
    hosts: list[str] = []
    virtual.meta.events.register_first(
        "before-send.s3.*", lambda request, **_: hosts.append(request.url.split("/")[2])
    )
    virtual.put_object(Bucket=BUCKET, Key="a/b c", Body=b"x")
    assert hosts == [f"{BUCKET}.localhost:8470"]
    assert client.get_object(Bucket=BUCKET, Key="a/b c")["Body"].read() == b"x"
    assert [one["Key"] for one in virtual.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["a/b c"]
    virtual.delete_object(Bucket=BUCKET, Key="a/b c")
    virtual.delete_bucket(Bucket=BUCKET)


# Forms


def send(
    server: WireServer, url: str, fields: Mapping[str, str], content: bytes = b"text", **more: str
) -> Response:
    """Posts a form as a browser would."""
    form: list[Any] = [*{**fields, **more}.items(), ("file", ("name.txt", content, "text/plain"))]
    body, content_type = encode_multipart_formdata(form)
    _, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    headers = {"host": host, "content-type": content_type, "content-length": str(len(body))}
    return server.answer_form(Request("POST", f"/{path}", "", headers, body), "the-request")


def code(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode().partition("<Code>")[2].partition("</Code>")[0]


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_S3_a_presigned_form_uploads_a_file(
    server: WireServer, client: Any, clients: Clients, signature: str
) -> None:
    signer = clients.client("s3", config=Config(signature_version=signature))
    post = signer.generate_presigned_post(
        BUCKET,
        "up/${filename}",
        Fields={"Content-Type": "text/csv", "x-amz-meta-who": "me", "success_action_status": "201"},
        Conditions=[
            ["starts-with", "$Content-Type", "text/"],
            {"x-amz-meta-who": "me"},
            {"success_action_status": "201"},
            ["content-length-range", 2, 10],
        ],
    )
    response = send(server, post["url"], post["fields"])
    assert response.status == 201, response.body
    found = client.get_object(Bucket=BUCKET, Key="up/name.txt")
    assert (found["Body"].read(), found["ContentType"], found["Metadata"]) == (
        b"text",
        "text/csv",
        {"who": "me"},
    )
    assert isinstance(response.body, bytes) and b"<Key>up/name.txt</Key>" in response.body
    assert dict(response.headers)["ETag"] == found["ETag"]
    assert code(send(server, post["url"], post["fields"], b"x")) == "EntityTooSmall"
    assert code(send(server, post["url"], post["fields"], b"x" * 11)) == "EntityTooLarge"
    assert client.get_object(Bucket=BUCKET, Key="up/name.txt")["Body"].read() == b"text"


def test_S3_a_form_may_do_only_what_its_policy_says(server: WireServer, client: Any) -> None:
    post = client.generate_presigned_post(BUCKET, "k", ExpiresIn=600)
    url, fields = post["url"], post["fields"]
    assert send(server, url, fields).status == 204
    denied = {
        "another key": (url, {**fields, "key": "other"}),
        "another bucket": (url.replace(f"/{BUCKET}", "/other-bucket"), fields),
        "one field more": (url, {**fields, "x-amz-meta-more": "1"}),
    }
    for what, (where, changed) in denied.items():
        response = send(server, where, changed)
        assert (response.status, code(response)) == (403, "AccessDenied"), what
    assert (
        code(send(server, url, {**fields, "policy": fields["policy"][:-4] + "AAAA"}))
        == "SignatureDoesNotMatch"
    )
    unknown = {name: value for name, value in fields.items() if name != "policy"}
    assert code(send(server, url, unknown)) == "AccessDenied"
    late = client.generate_presigned_post(BUCKET, "k", ExpiresIn=-1)
    assert code(send(server, late["url"], late["fields"])) == "AccessDenied"
    assert [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["k"]


def test_S3_a_form_can_ask_to_go_elsewhere_and_carry_tags(server: WireServer, client: Any) -> None:
    tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
    wishes = {"success_action_redirect": "http://example.com/done?x=1", "tagging": tagging}
    post = client.generate_presigned_post(
        BUCKET, "k", Fields=dict(wishes), Conditions=[{name: value} for name, value in wishes.items()]
    )
    response = send(server, post["url"], post["fields"])
    assert response.status == 303
    assert dict(response.headers)["Location"].startswith(
        "http://example.com/done?x=1&bucket=bucket&key=k&etag="
    )
    assert client.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == tags({"a": "1"})["TagSet"]


def test_S3_a_form_that_is_none_is_refused(server: WireServer, client: Any) -> None:
    post = client.generate_presigned_post(BUCKET, "k")

    def answer(body: bytes, content_type: str = "multipart/form-data; boundary=b") -> str:
        headers = {"host": "127.0.0.1", "content-type": content_type}
        return code(server.answer_form(Request("POST", f"/{BUCKET}", "", headers, body), "r"))

    assert answer(b"", "multipart/form-data") == "MalformedPOSTRequest"
    assert answer(b"garbage\r\n--b\r\n") == "MalformedPOSTRequest"
    assert answer(b"--b\r\nno header here") == "IncompleteBody"
    assert answer(b"--b--\r\n") == "InvalidArgument"
    assert answer(b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n" + b"x" * 100_000) == (
        "MaxPostPreDataLengthExceeded"
    )
    whole, content_type = encode_multipart_formdata([*post["fields"].items(), ("file", ("n", b"x" * 5000))])
    assert answer(whole[: len(whole) - 100], content_type) == "IncompleteBody"
    assert "Contents" not in client.list_objects_v2(Bucket=BUCKET)


def test_S3_a_policy_must_be_one(server: WireServer, client: Any) -> None:
    def answer(document: object) -> str:
        policy = base64.b64encode(json.dumps(document).encode()).decode()
        secret = TEST_ROOT.secret_access_key.encode()
        signature = base64.b64encode(hmac.digest(secret, policy.encode(), "sha1")).decode()
        fields = {
            "AWSAccessKeyId": TEST_ROOT.access_key_id,
            "policy": policy,
            "signature": signature,
            "key": "k",
        }
        return code(send(server, f"http://127.0.0.1/{BUCKET}", fields))

    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    documents: list[object] = [
        [],
        {"conditions": []},
        {"expiration": soon},
        {"expiration": soon, "conditions": [["eq"]]},
    ]
    for bad in documents:
        assert answer(bad) == "InvalidPolicyDocument", bad
    assert answer({"expiration": soon, "conditions": [["eq", "$key", "k"]]}) == ""
