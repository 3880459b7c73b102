"""S3's REST-XML: bindings, documents, and what is refused."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.wire import protocols
from clary.wire.messages import Request, Response
from clary.wire.models import ServiceModels
from clary.wire.operations import FileBody
from clary.wire.protocols.base import ShapeError

MODELS = ServiceModels()
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'


def parse(
    name: str, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    operation = MODELS.service("s3").operation(name)
    return protocols.load("rest-xml").parse(operation, Request(method, path, query, headers or {}, body))


def serialize(name: str, members: dict[str, Any] | None, status: int | None = None) -> Response:
    operation = MODELS.service("s3").operation(name)
    return protocols.load("rest-xml").serialize(operation, members, status=status, request_id="r")


def text(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def refused(code: str, name: str, method: str, target: str, body: bytes = b"", **headers: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(name, method, target, body, {key.replace("_", "-"): value for key, value in headers.items()})
    assert (caught.value.code, caught.value.status) == (code, 400)


def delete(body: bytes) -> dict[str, Any]:
    return parse("DeleteObjects", "POST", "/b?delete", body)


def test_a_key_is_decoded_and_keeps_its_slashes() -> None:
    assert parse("GetObject", "GET", "/b/a%20b//%C3%A9+%2F/") == {"Bucket": "b", "Key": "a b//é+//"}


def test_bytes_that_a_client_did_not_encode_are_utf_8() -> None:
    raw = "é".encode().decode("latin-1")
    assert parse("GetObject", "GET", f"/b/{raw}")["Key"] == "é"
    assert parse("ListObjectsV2", "GET", f"/b?list-type=2&prefix={raw}")["Prefix"] == "é"
    refused("InvalidURI", "GetObject", "GET", "/b/\xff")


def test_the_query_is_decoded() -> None:
    parsed = parse(
        "ListObjectsV2", "GET", "/b?list-type=2&prefix=a+b%2B&max-keys=7&fetch-owner=true&delimiter="
    )
    assert parsed == {"Bucket": "b", "Prefix": "a b+", "MaxKeys": 7, "FetchOwner": True, "Delimiter": ""}


def test_headers_are_read_by_their_types() -> None:
    headers = {
        "if-modified-since": "Thu, 01 Jan 2026 00:00:00 GMT",
        "range": "bytes=0-1",
        "x-amz-checksum-mode": "ENABLED",
    }
    assert parse("GetObject", "GET", "/b/k?partNumber=2", headers=headers) == {
        "Bucket": "b",
        "Key": "k",
        "IfModifiedSince": datetime(2026, 1, 1, tzinfo=UTC),
        "Range": "bytes=0-1",
        "ChecksumMode": "ENABLED",
        "PartNumber": 2,
    }


def test_metadata_comes_from_its_prefix() -> None:
    parsed = parse(
        "PutObject",
        "PUT",
        "/b/k",
        b"body",
        {"x-amz-meta-a": "1", "x-amz-meta-b-c": "", "x-amz-acl": "private"},
    )
    assert parsed["Metadata"] == {"a": "1", "b-c": ""}
    assert parsed["ACL"] == "private"


def test_a_list_in_a_header_may_be_quoted() -> None:
    headers = {"x-amz-object-attributes": 'ETag, "a, \\"b" ,ObjectSize'}
    parsed = parse("GetObjectAttributes", "GET", "/b/k?attributes", headers=headers)
    assert parsed["ObjectAttributes"] == ["ETag", 'a, "b', "ObjectSize"]


def test_a_streaming_body_is_handed_on_untouched() -> None:
    class Stream:
        trailers: Mapping[str, str] = {}

        def read(self, size: int) -> bytes:
            raise AssertionError("parsing reads no body")

    stream = Stream()
    operation = MODELS.service("s3").operation("PutObject")
    request = Request("PUT", "/b/k", "", {}, stream)
    assert protocols.load("rest-xml").parse(operation, request)["Body"] is stream


def test_a_document_is_read_with_or_without_its_namespace() -> None:
    for namespace in ("", NAMESPACE):
        body = (
            f"<Delete {namespace}><Object><Key>a&amp;b</Key></Object><Object><Key> </Key></Object></Delete>"
        )
        assert delete(body.encode())["Delete"] == {"Objects": [{"Key": "a&b"}, {"Key": " "}]}


def test_an_attribute_with_a_prefix_is_read() -> None:
    body = (
        b'<AccessControlPolicy><AccessControlList><Grant><Grantee xmlns:x="http://www.w3.org/2001/XMLSchema-instance" '
        b'x:type="CanonicalUser"><ID>i</ID></Grantee><Permission>READ</Permission></Grant></AccessControlList>'
        b"</AccessControlPolicy>"
    )
    parsed = parse("PutBucketAcl", "PUT", "/b?acl", body)
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "i"}, "Permission": "READ"}
    assert parsed["AccessControlPolicy"] == {"Grants": [grant]}


def test_no_document_is_no_member() -> None:
    assert parse("CreateBucket", "PUT", "/b") == {"Bucket": "b"}


LAUGHS = (
    b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'
)


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"Delete",
        b"<Other/>",
        b"\xff\xfe",
        b"<Delete><Object><Key><b/></Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Delete><Quiet>maybe</Quiet></Delete>",
        b"<Delete><Object><Key>a</Key><Size>1e3</Size></Object></Delete>",
        LAUGHS,
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><Delete/>',
        b"<Delete>&undefined;</Delete>",
        b"<Delete>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</Delete>",
        b"<Delete>" + b"<a/>" * 300_000 + b"</Delete>",
        b'<?xml version="1.0" encoding="nonsense"?><Delete',
    ],
)
def test_a_bad_document_is_malformed_xml(body: bytes) -> None:
    refused("MalformedXML", "DeleteObjects", "POST", "/b?delete", body)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            ["<Delete>", "</Delete>", "<Object>", "</Object>", "<Key>", "</Key>", "x", "<!--", "&#1;"]
        )
    )
    .map("".join)
    .map(str.encode)
)
def test_no_document_is_worse_than_malformed(body: bytes) -> None:
    try:
        delete(body)
    except Fault as fault:
        assert fault.code == "MalformedXML"


def test_what_cannot_be_read_is_refused_by_name() -> None:
    refused("InvalidURI", "GetObject", "GET", "/b/%ff")
    refused("InvalidURI", "ListObjectsV2", "GET", "/b?prefix=%ff")
    refused("InvalidURI", "ListObjectsV2", "GET", "/b?" + "a=&" * 2000)
    refused("InvalidArgument", "ListObjectsV2", "GET", "/b?max-keys=many")
    refused("InvalidArgument", "ListObjectsV2", "GET", "/b?max-keys=99999999999")
    refused("InvalidArgument", "GetObject", "GET", "/b/k", if_modified_since="yesterday")
    refused("InvalidArgument", "PutObject", "PUT", "/b/k", content_length="1_000")


def test_a_listing_looks_like_s3s() -> None:
    members = {
        "IsTruncated": False,
        "Contents": [
            {
                "Key": "a<b>\r",
                "LastModified": datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
                "ETag": '"e"',
                "Size": 3,
            }
        ],
        "Name": "b",
        "Prefix": "",
        "CommonPrefixes": [{"Prefix": "p/"}, {"Prefix": "q/"}],
        "KeyCount": 3,
    }
    response = serialize("ListObjectsV2", members)
    assert dict(response.headers)["Content-Type"] == "application/xml"
    assert text(response) == (
        f"{PROLOGUE}<ListBucketResult {NAMESPACE}><IsTruncated>false</IsTruncated><Contents><Key>a&lt;b&gt;&#13;</Key>"
        "<LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
        "<Name>b</Name><Prefix/><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
        "<CommonPrefixes><Prefix>q/</Prefix></CommonPrefixes><KeyCount>3</KeyCount></ListBucketResult>"
    )


def test_a_payload_structure_is_the_document() -> None:
    members = {"CopyObjectResult": {"ETag": '"e"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}}
    assert text(serialize("CopyObject", members)) == (
        f"{PROLOGUE}<CopyObjectResult {NAMESPACE}><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>"
    )


@pytest.mark.parametrize(
    ("region", "element"),
    [
        ("eu-west-1", f"<LocationConstraint {NAMESPACE}>eu-west-1</LocationConstraint>"),
        (None, f"<LocationConstraint {NAMESPACE}/>"),
    ],
)
def test_a_location_is_one_bare_element(region: str | None, element: str) -> None:
    assert text(serialize("GetBucketLocation", {"LocationConstraint": region})) == PROLOGUE + element


def test_members_travel_in_headers() -> None:
    response = serialize(
        "HeadObject",
        {
            "ContentLength": 12,
            "ETag": '"e"',
            "LastModified": datetime(2026, 1, 1, tzinfo=UTC),
            "Metadata": {"a": "1"},
            "BucketKeyEnabled": True,
        },
    )
    assert response.body == b""
    assert dict(response.headers) == {
        "x-amz-request-id": "r",
        "x-amz-id-2": "r",
        "Content-Length": "12",
        "ETag": '"e"',
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "x-amz-meta-a": "1",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
    }


def test_a_deletion_answers_204_without_body() -> None:
    response = serialize("DeleteObject", {"DeleteMarker": None})
    assert (response.status, response.body) == (204, b"")


def test_a_file_is_streamed_with_its_length() -> None:
    body = FileBody("/objects/1", 10, 20)
    response = serialize(
        "GetObject", {"Body": body, "ContentType": "text/csv", "ContentRange": "bytes 10-29/40"}, 206
    )
    assert (response.status, response.body) == (206, body)
    headers = dict(response.headers)
    assert headers["Content-Length"] == "20"
    assert headers["Content-Type"] == "text/csv"


def test_a_handlers_own_headers_win() -> None:
    operation = MODELS.service("s3").operation("GetObject")
    headers = [("content-type", "text/plain"), ("X-More", "1")]
    members = {"Body": b"", "ContentType": "text/csv"}
    response = protocols.load("rest-xml").serialize(operation, members, headers=headers, request_id="r")
    assert [value for name, value in response.headers if name.lower() == "content-type"] == ["text/plain"]
    assert ("X-More", "1") in response.headers


def test_a_length_that_is_not_true_is_our_bug() -> None:
    with pytest.raises(ShapeError):
        serialize("GetObject", {"Body": b"abc", "ContentLength": 4})


def test_a_stream_that_is_none_is_our_bug() -> None:
    for body in ("text", 5, object()):
        with pytest.raises(ShapeError):
            serialize("GetObject", {"Body": body})


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "漢", "\x00"])
def test_what_no_header_can_hold_is_refused(value: str) -> None:
    with pytest.raises(Fault) as caught:
        serialize("GetObject", {"Body": b"", "ContentDisposition": value})
    assert caught.value.code == "InvalidArgument"
