"""Event-stream frames, read back by botocore; importable without it."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.wire import protocols
from clary.wire.models import ServiceModels
from clary.wire.protocols import eventstream
from clary.wire.protocols.base import ShapeError

VALUES: st.SearchStrategy[Any] = (
    st.text(max_size=20) | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary(max_size=20)
)


def read(data: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc:-", min_size=1, max_size=9), VALUES, max_size=5), st.binary(max_size=300))
def test_botocore_reads_what_we_frame(headers: dict[str, Any], payload: bytes) -> None:
    [message] = read(eventstream.encode_event(headers, payload))
    assert message.headers == headers
    assert message.payload == payload


def test_a_time_is_milliseconds() -> None:
    [message] = read(eventstream.encode_event({"at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}, b""))
    assert message.headers == {"at": 1000}


def test_headers_are_encoded_once_for_many_events() -> None:
    headers = eventstream.event_headers("PayloadPart", "application/octet-stream")
    messages = read(eventstream.frame(headers, b"a") + eventstream.frame(headers, b"b"))
    assert [message.payload for message in messages] == [b"a", b"b"]
    assert messages[0].headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }


def test_an_exception_frame_names_its_error() -> None:
    [message] = read(eventstream.frame(eventstream.exception_headers("ModelStreamError"), b'{"Message":"m"}'))
    response = message.to_response_dict()
    assert response["status_code"] == 400
    assert response["headers"][":exception-type"] == "ModelStreamError"


@pytest.mark.parametrize("headers", [{"": "x"}, {"n" * 256: "x"}, {"n": "x" * 65536}])
def test_what_the_format_cannot_hold_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="event's header"):
        eventstream.encode_event(headers, b"")


def test_a_modelled_stream_becomes_frames() -> None:
    operation = ServiceModels().service("sagemaker-runtime").operation("InvokeEndpointWithResponseStream")
    events = [
        {"PayloadPart": {"Bytes": b"part"}},
        {"ModelStreamError": {"Message": "m", "ErrorCode": "StreamBroken"}},
    ]
    members = {"Body": iter(events), "ContentType": "text/plain"}
    response = protocols.load("rest-json").serialize(operation, members, request_id="r")
    headers = dict(response.headers)
    assert headers["Content-Type"] == "application/vnd.amazon.eventstream"
    assert headers["X-Amzn-SageMaker-Content-Type"] == "text/plain"
    assert not isinstance(response.body, bytes)
    part, error = read(b"".join(response.body))  # type: ignore[arg-type]
    assert part.headers[":event-type"] == "PayloadPart"
    assert part.payload == b"part"
    assert error.headers[":exception-type"] == "ModelStreamError"
    assert error.payload == b'{"Message":"m","ErrorCode":"StreamBroken"}'


@pytest.mark.parametrize(
    "event", [{}, {"Part": {}}, {"PayloadPart": {"Bytes": "text"}}, {"PayloadPart": {"Data": b""}}]
)
def test_an_event_that_does_not_fit_is_our_bug(event: dict[str, Any]) -> None:
    operation = ServiceModels().service("sagemaker-runtime").operation("InvokeEndpointWithResponseStream")
    response = protocols.load("rest-json").serialize(operation, {"Body": [event]}, request_id="r")
    with pytest.raises(ShapeError):
        list(response.body)  # type: ignore[arg-type]


def test_framing_needs_no_botocore() -> None:
    program = (
        "import sys, clary.wire.protocols.eventstream;"
        "heavy = {'botocore', 'sqlalchemy', 'msgspec', 'boto3'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
