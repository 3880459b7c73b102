"""One captured request as a line of SageMaker's JSON Lines. Pure.

Data is text where its content type is listed as CSV or JSON and it is UTF-8, BASE64 otherwise. The content type that
is written is the header as it came, with its parameters.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from clary.domain.routes import Capture

EVENT_VERSION = "0"
_BESIDE = 512  # a line's words and the objects around them: most of a small request's memory
_PIECE = 48 << 10  # whole groups of three bytes, so that pieces of base64 can be put together


class Payload(NamedTuple):
    """A body with the content type it was sent with, empty when none was said."""

    content_type: str
    data: bytes


class Captured(NamedTuple):
    """One request that was sampled. `answer` is None when the model gave an error."""

    event_id: str
    at: float  # seconds since the epoch
    request: Payload
    answer: Payload | None
    inference_id: str = ""
    custom_attributes: str = ""

    @property
    def size(self) -> int:
        """What it takes to hold, about."""
        bodies = len(self.request.data) + (len(self.answer.data) if self.answer else 0)
        return bodies + len(self.custom_attributes) + _BESIDE


class _Side(msgspec.Struct):
    observedContentType: str
    mode: str
    data: str
    encoding: str


class _Data(msgspec.Struct, omit_defaults=True):
    endpointInput: _Side | None = None
    endpointOutput: _Side | None = None


class _Event(msgspec.Struct, omit_defaults=True):
    eventId: str
    customAttributes: list[str] | None = None
    inferenceId: str = ""
    inferenceTime: str | None = None


class _Line(msgspec.Struct):
    captureData: _Data
    eventMetadata: _Event
    eventVersion: str


def line(captured: Captured, capture: Capture) -> bytes:
    """The line with its end. Takes a few microseconds, which every captured request waits for."""
    data = _Data()
    if capture.takes_input:
        data.endpointInput = _side("INPUT", captured.request, capture)
    if capture.takes_output and captured.answer is not None:
        data.endpointOutput = _side("OUTPUT", captured.answer, capture)
    attributes = [captured.custom_attributes] if captured.custom_attributes else None
    event = _Event(captured.event_id, attributes, captured.inference_id, _second(int(captured.at)))
    return _encode(_Line(data, event, EVENT_VERSION)) + b"\n"


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


@lru_cache(maxsize=16)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _side(mode: str, payload: Payload, capture: Capture) -> _Side:
    encoding = _encoding(payload.content_type, capture)
    text = ""
    if encoding != "BASE64":
        try:
            text = payload.data.decode()
        except UnicodeDecodeError:
            encoding = "BASE64"
    if encoding == "BASE64":
        text = _base64(payload.data)
    return _Side(payload.content_type, mode, text, encoding)


def _encoding(content_type: str, capture: Capture) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in capture.csv_types:
        return "CSV"
    return "JSON" if media_type in capture.json_types else "BASE64"


def _base64(data: bytes) -> str:
    """In pieces: one call over many megabytes would keep every other thread from running."""
    if len(data) <= _PIECE:
        return base64.b64encode(data).decode()
    return "".join(base64.b64encode(data[at : at + _PIECE]).decode() for at in range(0, len(data), _PIECE))
