"""Requests as broken and hostile clients send them, against a running server, and what every answer must be like.

    with RunningServer() as server:
        fuzz = Fuzz(server, {"Bucket": "a-bucket-that-exists"})
        for service, name in operation_names():
            fuzz.operation(service, name, examples=100, seed=1)
        fuzz.raw_bytes(examples=100, seed=1)

A request is drawn from the operation's model: valid, with values of any length and pattern, with one constraint
broken, or mutilated after it was serialized. It is signed rightly, so that it comes through to its operation. What must
hold of every answer: it comes within `PATIENCE_S`, is no 5xx (but S3's NotImplemented, 501), and botocore
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
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.credentials import Credentials
from botocore.model import OperationModel
from botocore.parsers import create_parser
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from clary.testing.raw_requests import RawRequest, conversations, own_requests, requests
from clary.testing.server import RunningServer
from clary.testing.shapes import check_output
from clary.wire.models import ServiceModels

PATIENCE_S = 60.0
SIGNING_NAMES = {"cloudwatch": "monitoring", "sagemaker-runtime": "sagemaker"}


class Unfit(AssertionError):
    """An answer that must not be, or none."""


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
            _property(own_requests(), self._exchange_own, examples, seed)
            return
        operation = ServiceModels({(service, name)}).service(service).operation(name)
        for protocol in _protocols(operation):
            drawn = requests(operation, protocol, self.known)

            def check(request: RawRequest, protocol: str = protocol) -> None:
                answer = self.exchange(service, request)
                _must_fit(operation, protocol, request, answer)

            _property(drawn, check, examples, seed)

    def raw_bytes(self, *, examples: int, seed: int) -> None:
        """Whatever bytes: answered with a refusal or by closing, never with silence."""
        _property(conversations(), self._send_bytes, examples, seed)

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
            raise Unfit(f"no answer ({type(error).__name__}: {error}) to {request}") from error
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
        signer(credentials, SIGNING_NAMES.get(service, service), self.server.settings.region).add_auth(
            prepared
        )
        return {name: str(value) for name, value in prepared.headers.items()}

    def _exchange_own(self, request: RawRequest) -> None:
        answer = self.exchange("clary", request)
        if answer.status >= 500:
            raise Unfit(f"{answer.status} {answer.body[:300]!r} to {request}")
        with _fitting(request, answer):
            json.loads(answer.body or b"{}")

    def _send_bytes(self, data: bytes) -> None:
        address = urlsplit(self.server.url)
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as sock:
            received = _said_to(sock, data)
        status = _status_of(received, data)
        self.answers[status] += 1
        if status >= 500 and status != 505:  # what RFC 9110 has for another HTTP than ours
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
    return (
        ServiceModels({(operation.service_model.service_name, operation.name)})
        .service(operation.service_model.service_name)
        .protocol_names
    )


def _must_fit(operation: OperationModel, protocol: str, request: RawRequest, answer: RawAnswer) -> None:
    with _fitting(request, answer):
        if answer.status >= 500 and not _is_refused_by_name(protocol, request, answer):
            raise AssertionError("a 5xx")
        if request.may_mean_another:
            return
        parsed = _parsed(operation, protocol, answer)
        if answer.status >= 300:
            assert parsed.get("Error", {}).get("Code") or not answer.body, "an error without a code"
        else:
            parsed.pop("ResponseMetadata", None)
            # A stream is there, whatever it holds.
            check_output(operation, {k: b"" if hasattr(v, "close") else v for k, v in parsed.items()})


def _is_refused_by_name(protocol: str, request: RawRequest, answer: RawAnswer) -> bool:
    """S3 says NotImplemented, 501, to what it does not support; to HEAD it has to say so without a body."""
    is_named = b"<Code>NotImplemented</Code>" in answer.body or (request.method == "HEAD" and not answer.body)
    return protocol == "rest-xml" and answer.status == 501 and is_named


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
                f"  to {self._request}"
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
    parser: Any = create_parser(protocol)
    parsed: dict[str, Any] = parser.parse(described, operation.output_shape)
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
