"""Requests that no AWS client would send, drawn for `clary.testing.fuzz`: what they say, before they are signed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import AWSRequest, prepare_request_dict
from botocore.model import OperationModel
from botocore.serialize import create_serializer
from hypothesis import strategies as st

from clary.testing.shapes import Members, broken_input_for, input_for

KINDS = ("valid", "unconstrained", "broken", "mutilated")


@dataclass(slots=True)
class RawRequest:
    """A request before it is signed."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    may_mean_another: bool = False  # it was mutilated where it says which operation it is

    def __str__(self) -> str:
        return f"{self.method} {self.target[:300]} {self.headers} {self.body[:500]!r}"


@st.composite
def requests(
    draw: st.DrawFn, operation: OperationModel, protocol: str, known: Mapping[str, str]
) -> RawRequest:
    kind = draw(st.sampled_from(KINDS))
    if kind == "broken":
        params = draw(broken_input_for(operation) | input_for(operation, constrained=False))
    else:
        params = draw(input_for(operation, constrained=kind != "unconstrained"))
    if not operation.name.startswith("Delete"):  # what is known stays
        _introduce(draw, params, known)
    request = serialized(operation, protocol, params)
    # Without its required query, `GET /bucket/key?uploadId=…` asks for the object.
    request.may_mean_another = kind == "broken" and protocol == "rest-xml"
    if kind == "mutilated":
        for _ in range(draw(st.integers(1, 3))):
            mutilate = draw(st.sampled_from(_MUTILATIONS))
            mutilate(draw, request)
            # The query protocol names the operation in the body.
            if mutilate not in _KEEPING_THE_NAME or protocol == "query":
                request.may_mean_another = True
    return request


@st.composite
def own_requests(draw: st.DrawFn) -> RawRequest:
    """Below `/_clary/`; never the one request that would empty the server."""
    path = draw(st.sampled_from(("status", "health", "why/", "reset", "why/x", "", "nothing")))
    path += draw(st.text("abc-/%.?=é", max_size=6))
    method = draw(st.sampled_from(("GET", "POST", "PUT", "DELETE")))
    if "reset" in path and method == "POST":
        method = "GET"
    body = draw(st.binary(max_size=20) | st.sampled_from(_BODIES))
    return RawRequest(method, "/_clary/" + path.replace("é", "%c3%a9"), {}, body)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Bytes that are no request, or almost one."""
    data = draw(st.sampled_from(_CONVERSATIONS) | st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]
    return data


def _introduce(draw: st.DrawFn, params: Members, known: Mapping[str, str]) -> None:
    """Puts what exists in the place of invented names, most of the time."""
    for name in params:
        if name in known and draw(st.integers(0, 3)):
            params[name] = known[name]


def serialized(operation: OperationModel, protocol: str, params: Members) -> RawRequest:
    """As botocore writes it, without its own checks. The length is the body's: another one only hangs the sender."""
    written: Any = create_serializer(protocol, include_validation=False).serialize_to_request(
        dict(params), operation
    )
    written.pop("host_prefix", None)
    written["context"] = {}
    prepare_request_dict(written, endpoint_url="http://127.0.0.1")
    written["headers"].pop("Content-Length", None)
    prepared = AWSRequest(
        written["method"], written["url"], headers=written["headers"], data=written["body"]
    ).prepare()
    target = prepared.url.removeprefix("http://127.0.0.1") or "/"
    headers = {name: _text(value) for name, value in prepared.headers.items()}
    headers.pop("Content-Length", None)
    return RawRequest(prepared.method, target, headers, _content(prepared.body))


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _content(body: Any) -> bytes:
    content = body.read() if hasattr(body, "read") else body or b""
    return content if isinstance(content, bytes) else content.encode()


def _cut_body(draw: st.DrawFn, request: RawRequest) -> None:
    request.body = request.body[: draw(st.integers(0, len(request.body)))]


def _flip_bytes(draw: st.DrawFn, request: RawRequest) -> None:
    if request.body:
        at = draw(st.integers(0, len(request.body) - 1))
        request.body = request.body[:at] + draw(st.binary(max_size=3)) + request.body[at + 1 :]


def _other_body(draw: st.DrawFn, request: RawRequest) -> None:
    request.body = draw(st.binary(max_size=60) | st.sampled_from(_BODIES))


def _other_json(draw: st.DrawFn, request: RawRequest) -> None:
    """One value, somewhere, of another type."""
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        return
    places = list(_places(document))
    if places:
        holder, key = draw(st.sampled_from(places))
        holder[key] = draw(st.sampled_from(_VALUES))
        request.body = json.dumps(document).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys: list[Any] = []
    if isinstance(document, dict):
        keys = list(document)
    elif isinstance(document, list):
        keys = list(range(len(document)))
    for key in keys:
        yield document, key
        yield from _places(document[key])


def _lose_header(draw: st.DrawFn, request: RawRequest) -> None:
    if request.headers:
        del request.headers[draw(st.sampled_from(sorted(request.headers)))]


def _other_header(draw: st.DrawFn, request: RawRequest) -> None:
    names = sorted({*request.headers, *_HEADERS})
    request.headers[draw(st.sampled_from(names))] = draw(st.sampled_from(_HEADER_VALUES) | _VISIBLE)


def _other_method(draw: st.DrawFn, request: RawRequest) -> None:
    request.method = draw(st.sampled_from(("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS")))


def _other_target(draw: st.DrawFn, request: RawRequest) -> None:
    path, _, query = request.target.partition("?")
    added = draw(st.sampled_from(_QUERIES))
    path += draw(st.sampled_from(("", "", "/", "/more", "%00", "%ff", "%2e%2e", "+")))
    request.target = path + "?" + "&".join(part for part in (query, added) if part)


_KEEPING_THE_NAME = (_cut_body, _flip_bytes, _other_body, _other_json)
_MUTILATIONS = (
    *_KEEPING_THE_NAME,
    _other_json,
    _lose_header,
    _other_header,
    _other_method,
    _other_target,
)
_VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
_VALUES: tuple[Any, ...] = (None, True, 0, -1, 1 << 70, 1.5, "", "x", [], {}, [[]], [None], {"x": None})
_BODIES = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1e999",
    b"{",
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"EndpointName": NaN}',
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b"<x/>",
    b"<x>" * 5000,
    b"<!DOCTYPE x [<!ENTITY y 'z'>]><x>&y;</x>",
    b"Action=ListMetrics&Version=1&Version=2",
    b"%ff=%ff&=&&Dimensions.member.999999999.Name=x",
)
_HEADERS = (
    "Content-Type",
    "X-Amz-Target",
    "Accept",
    "Range",
    "Content-MD5",
    "Content-Encoding",
    "If-Match",
    "If-Modified-Since",
    "x-amz-checksum-crc32",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-copy-source",
    "x-amz-decoded-content-length",
    "x-clary-identity",
    "x-clary-request-id",
)
_HEADER_VALUES = (
    "application/x-amz-json-1.1",
    "application/x-www-form-urlencoded",
    "application/cbor",
    "text/csv",
    "SageMaker.CreateModel",
    "SageMaker.",
    "bytes=0-0",
    "bytes=9-1",
    "bytes=-0",
    "gzip",
    "aws-chunked",
    "*",
    "-1",
    "99999999999999999999",
    "\xff\xfe",
    "Thu, 99 Foo 2026 99:99:99 GMT",
)
_QUERIES = (
    "",
    "acl",
    "uploads",
    "uploadId=",
    "uploadId=x&partNumber=0",
    "partNumber=99999999999999999999",
    "list-type=2",
    "list-type=3",
    "max-keys=-1",
    "max-keys=x",
    "continuation-token=%ff",
    "delete",
    "location",
    "versions",
    "versionId=x",
    "encoding-type=url",
    "encoding-type=x",
    "%ff=%00",
    "=",
    "Action=CreateModel",
)


_HEAD = b"POST /endpoints/a/invocations HTTP/1.1\r\nHost: a\r\n"
_CONVERSATIONS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    _HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    _HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(5000)) + b"\r\n",
    _HEAD + b"Content-Length: -1\r\n\r\n",
    _HEAD + b"Content-Length: 10\r\n\r\nshort",
    _HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    _HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nab\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    _HEAD + b"Authorization: AWS4-HMAC-SHA256 Credential=\xff/\xff\r\n\r\n",
    _HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
)
