"""Requests as broken and hostile clients send them, against a running server, and what every answer must be like.

    with RunningServer() as server:
        fuzz = Fuzz(server, {"Bucket": "a-bucket-that-exists"})
        for service, name in operation_names():
            fuzz.operation(service, name, examples=100, seed=1)
        fuzz.raw_bytes(examples=100, seed=1)

A request is drawn from the operation's model: valid, with values of any length and pattern, with one constraint
broken, or mutilated after it was serialized. It is signed rightly, so that it comes through to its operation. What must
hold of every answer: it comes within `PATIENCE_S`, is no 5xx (but what S3 calls NotImplemented, 501), and botocore
reads it as the operation's output or as an error with a code. `Unfit` says which did not.
"""

import io
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest, HeadersDict, prepare_request_dict
from botocore.credentials import Credentials
from botocore.model import OperationModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from clary.testing.server import RunningServer
from clary.testing.shapes import Members, broken_input_for, check_output, input_for
from clary.wire.models import ServiceModels

PATIENCE_S = 10.0
KINDS = ("valid", "unconstrained", "broken", "mutilated")
SIGNING_NAMES = {"cloudwatch": "monitoring", "sagemaker-runtime": "sagemaker"}


class Unfit(AssertionError):
    """An answer that must not be, or none."""


@dataclass(slots=True)
class RawRequest:
    """A request before it is signed."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Fuzz:
    """`known` are members by name with values that exist, so that a request also gets further than "not found"."""

    server: RunningServer
    known: Mapping[str, str] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)  # status → how many; 0: closed without an answer

    def operation(self, service: str, name: str, *, examples: int, seed: int) -> None:
        """Raises `Unfit` for the first answer to this operation that must not be."""
        if service == "clary":
            _property(st.composite(_own_request)(), self._exchange_own, examples, seed)
            return
        operation = ServiceModels({(service, name)}).service(service).operation(name)
        for protocol in _protocols(operation):
            requests = st.composite(_request)(operation, protocol, self.known)

            def check(request: RawRequest, protocol: str = protocol) -> None:
                answer = self.exchange(service, request)
                _must_fit(operation, protocol, request, answer)

            _property(requests, check, examples, seed)

    def raw_bytes(self, *, examples: int, seed: int) -> None:
        """Whatever bytes: answered with a refusal or by closing, never with silence."""
        _property(st.composite(_bytes)(), self._send_bytes, examples, seed)

    def exchange(self, service: str, request: RawRequest) -> RawAnswer:
        """Signs and sends. Raises `Unfit` when there is no answer in time."""
        headers = self._signed(service, request)
        address = urlsplit(self.server.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
        try:
            connection.request(request.method, request.target, request.body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            raise Unfit(f"no answer ({type(error).__name__}: {error}) to {_told(request)}") from error
        finally:
            connection.close()
        self.answers[response.status] += 1
        return RawAnswer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    def _signed(self, service: str, request: RawRequest) -> dict[str, str]:
        key = self.server.running.key
        credentials = Credentials(key.access_key_id, key.secret_access_key)
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        prepared = AWSRequest(
            request.method, self.server.url + request.target, headers=request.headers, data=request.body
        )
        signer(credentials, SIGNING_NAMES.get(service, service), self.server.settings.region).add_auth(prepared)
        return {name: str(value) for name, value in prepared.headers.items()}

    def _exchange_own(self, request: RawRequest) -> None:
        answer = self.exchange("clary", request)
        if answer.status >= 500:
            raise Unfit(f"{answer.status} {answer.body[:300]!r} to {_told(request)}")
        with _fitting(request, answer):
            json.loads(answer.body or b"{}")

    def _send_bytes(self, data: bytes) -> None:
        address = urlsplit(self.server.url)
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as sock:
            received = _said_to(sock, data)
        status = _status_of(received, data)
        self.answers[status] += 1
        if status >= 500:
            raise Unfit(f"{received[:300]!r} to {data[:300]!r}")


def _property(
    drawn: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int, number: int
) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def holds(value: Any) -> None:
        check(value)

    holds()


def _protocols(operation: OperationModel) -> tuple[str, ...]:
    return ServiceModels({(operation.service_model.service_name, operation.name)}).service(
        operation.service_model.service_name
    ).protocol_names


def _request(
    draw: st.DrawFn, operation: OperationModel, protocol: str, known: Mapping[str, str]
) -> RawRequest:
    kind = draw(st.sampled_from(KINDS))
    if kind == "broken":
        params = draw(broken_input_for(operation) | input_for(operation, constrained=False))
    else:
        params = draw(input_for(operation, constrained=kind != "unconstrained"))
    _introduce(draw, params, known)
    request = serialized(operation, protocol, params)
    if kind == "mutilated":
        for _ in range(draw(st.integers(1, 3))):
            draw(st.sampled_from(_MUTILATIONS))(draw, request)
    return request


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
    except ValueError:
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


_MUTILATIONS = (
    _cut_body,
    _flip_bytes,
    _other_body,
    _other_json,
    _other_json,
    _lose_header,
    _other_header,
    _other_method,
    _other_target,
)
_VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
_VALUES = (None, True, 0, -1, 1 << 70, 1.5, "", "x", [], {}, [[]], [None], {"x": None})
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


def _own_request(draw: st.DrawFn) -> RawRequest:
    """Below `/_clary/`; never the one request that would empty the server."""
    path = draw(st.sampled_from(("status", "health", "why/", "reset", "why/x", "", "nothing")))
    path += draw(st.text("abc-/%.?=é", max_size=6))
    method = draw(st.sampled_from(("GET", "POST", "PUT", "DELETE")))
    if "reset" in path and method == "POST":
        method = "GET"
    body = draw(st.binary(max_size=20) | st.sampled_from(_BODIES))
    return RawRequest(method, "/_clary/" + path.replace("é", "%c3%a9"), {}, body)


def _must_fit(operation: OperationModel, protocol: str, request: RawRequest, answer: RawAnswer) -> None:
    is_mine = _reads_as_mine(operation, request)
    with _fitting(request, answer):
        parsed = _parsed(operation, protocol, answer)
        code = parsed.get("Error", {}).get("Code", "")
        if answer.status >= 500 and (answer.status, code) != (501, "NotImplemented"):
            raise AssertionError("a 5xx")
        if answer.status >= 300:
            assert code or not answer.body, "an error without a code"
        elif is_mine:
            parsed.pop("ResponseMetadata", None)
            check_output(operation, {k: v for k, v in parsed.items() if not hasattr(v, "close")})


def _reads_as_mine(operation: OperationModel, request: RawRequest) -> bool:
    """Whether the request is still one of this operation: a mutilated one may mean another."""
    written = operation.http
    target = request.headers.get("X-Amz-Target")
    if target is not None:
        return target.rpartition(".")[2] == operation.name
    return request.method == written.get("method") and "?" not in request.target


class _fitting:
    """Tells which request and which answer it was when a check inside fails."""

    def __init__(self, request: RawRequest, answer: RawAnswer) -> None:
        self._request, self._answer = request, answer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            answer = self._answer
            raise Unfit(
                f"{type(error).__name__}: {error}\n  answer {answer.status} {answer.headers} {answer.body[:500]!r}\n"
                f"  to {_told(self._request)}"
            ) from error


def _parsed(operation: OperationModel, protocol: str, answer: RawAnswer) -> dict[str, Any]:
    body: Any = answer.body
    if answer.status < 300 and operation.has_event_stream_output:
        body = _Frames(answer.body)
    elif answer.status < 300 and operation.has_streaming_output:
        body = io.BytesIO(answer.body)
    described = {
        "status_code": answer.status,
        "headers": HeadersDict(answer.headers),
        "body": body,
        "context": {"operation_name": operation.name},
    }
    parsed: dict[str, Any] = create_parser(protocol).parse(described, operation.output_shape)
    stream = next((value for value in parsed.values() if hasattr(value, "_event_generator")), None)
    for _ in stream or ():
        pass
    return parsed


class _Frames:
    """What botocore's event stream reads from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content

    def close(self) -> None:
        pass


def _told(request: RawRequest) -> str:
    return f"{request.method} {request.target[:300]} {request.headers} {request.body[:500]!r}"


def _bytes(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(_CONVERSATIONS) | st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]
    return data


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


def _said_to(sock: socket.socket, data: bytes) -> bytes:
    """Everything that comes back until the other side closes. Raises `Unfit` when it does neither in time."""
    received = b""
    try:
        with suppress(ConnectionError):
            # It may answer and close before it has read everything.
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while more := sock.recv(65536):
                received += more
    except TimeoutError as error:
        raise Unfit(f"silence after {received[:200]!r} to {data[:300]!r}") from error
    return received


def _status_of(received: bytes, data: bytes) -> int:
    if not received:
        return 0
    words = received.split(b" ", 2)
    if not received.startswith(b"HTTP/1.") or len(words) < 3 or not words[1].isdigit():
        raise Unfit(f"no HTTP: {received[:300]!r} to {data[:300]!r}")
    return int(words[1])
