"""botocore is the other end: what it writes we read, what we write it reads, for every operation of our services."""

import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.model import OperationModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clary.testing.shapes import input_for, output_for
from clary.wire import protocols
from clary.wire.messages import Request, Response
from clary.wire.models import ServiceModels

MODELS = ServiceModels()

SPOKEN = [
    ("cloudwatch", "json"),
    ("cloudwatch", "query"),
    ("cloudwatch", "smithy-rpc-v2-cbor"),
    ("iam", "query"),
    ("logs", "json"),
    ("s3", "rest-xml"),
    ("sagemaker", "json"),
    ("sagemaker-runtime", "rest-json"),
    ("sts", "query"),
]

# Deprecated; their model gives two members one element's name.
AMBIGUOUS = {"GetBucketNotification", "PutBucketNotification"}

few = settings(
    max_examples=3,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_what_botocore_writes_we_read(service: str, protocol: str) -> None:
    for operation in operations(service):
        check_reading(operation, protocol)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_what_we_write_botocore_reads(service: str, protocol: str) -> None:
    for operation in operations(service):
        check_writing(operation, protocol)


def operations(service: str) -> Iterator[OperationModel]:
    model = MODELS.service(service)
    return (model.operation(name) for name in sorted(model.operation_names - AMBIGUOUS))


def check_reading(operation: OperationModel, protocol: str) -> None:
    @few
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        params = data.draw(input_for(operation, constrained=False), label=operation.name)
        request = written_by_botocore(operation, protocol, params)
        assert comparable(protocols.load(protocol).parse(operation, request)) == comparable(params)

    check()


def check_writing(operation: OperationModel, protocol: str) -> None:
    @few
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        members = data.draw(output_for(operation), label=operation.name)
        response = protocols.load(protocol).serialize(operation, members, request_id="the-request")
        parsed = read_by_botocore(operation, protocol, response)
        metadata = parsed.pop("ResponseMetadata")
        if (
            operation.output_shape is not None or "cbor" not in protocol
        ):  # there botocore does not look for it
            assert metadata["RequestId"] == "the-request"
        assert metadata["HTTPStatusCode"] == response.status
        assert comparable(parsed) == expected(operation, members)

    check()


def written_by_botocore(operation: OperationModel, protocol: str, params: Mapping[str, Any]) -> Request:
    serialized = create_serializer(protocol, include_validation=False).serialize_to_request(
        dict(params), operation
    )
    serialized.pop("host_prefix", None)
    serialized["context"] = {}
    prepare_request_dict(serialized, endpoint_url="http://127.0.0.1")
    prepared = create_request_object(serialized).prepare()
    path, _, query = prepared.url.removeprefix("http://127.0.0.1").partition("?")
    body = prepared.body or b""
    if hasattr(body, "read"):
        body = body.read()
    headers = {name.lower(): text(value) for name, value in prepared.headers.items()}
    if "ContentLength" not in params:
        headers.pop("content-length", None)
    return Request(prepared.method, path, query, headers, body if isinstance(body, bytes) else body.encode())


def read_by_botocore(operation: OperationModel, protocol: str, response: Response) -> dict[str, Any]:
    body: Any = response.body
    if operation.has_event_stream_output:
        body = RawStream(response.body)
    elif operation.has_streaming_output:
        assert isinstance(response.body, bytes)
        body = io.BytesIO(response.body)
    described = {
        "status_code": response.status,
        "headers": HeadersDict(response.headers),
        "body": body,
        "context": {"operation_name": operation.name},
    }
    parser: Any = create_parser(protocol)
    parsed: dict[str, Any] = parser.parse(described, operation.output_shape)
    parsed.setdefault("ResponseMetadata", {}).setdefault("HTTPStatusCode", response.status)
    return {name: drained(value) for name, value in parsed.items()}


class RawStream:
    """What botocore's event stream reads from."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames

    def stream(self) -> Iterator[bytes]:
        return iter(self._frames)

    def close(self) -> None:
        pass


def drained(value: Any) -> Any:
    if isinstance(value, io.BytesIO):
        return value.read()
    if hasattr(value, "get_initial_response"):
        return list(value)
    return value


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def expected(operation: OperationModel, members: Mapping[str, Any]) -> Any:
    """What a client sees: GetBucketLocation's answer is taken apart by botocore's own handler, not by its parser."""
    if operation.name == "GetBucketLocation":
        return {}
    return comparable(members)


def comparable(value: Any) -> Any:
    """Without what some protocols cannot tell from nothing: empty texts, blobs and collections."""
    if isinstance(value, Mapping):
        kept = {key: comparable(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ("", b"", {}, [], None)}
    if isinstance(value, list | tuple):
        return [item for item in map(comparable, value) if item not in ("", b"", {}, [], None)]
    if isinstance(value, datetime):
        return value.timestamp()
    return value
