"""Frames of `application/vnd.amazon.eventstream`, for whoever streams: the gateway imports this module alone.

A frame: total length, length of the headers, CRC-32 of those eight bytes, headers, payload, CRC-32 of all before it;
big-endian throughout. A stream of equal events encodes its headers once (`encode_headers`) and frames each payload
with them (`frame`).
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"

HeaderValue = str | bool | int | bytes | datetime

# The most that clients take in one frame.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
_MAX_HEADERS_BYTES = 128 * 1024

_PRELUDE = struct.Struct("!II")
_CHECKSUM = struct.Struct("!I")
_OVERHEAD = _PRELUDE.size + 2 * _CHECKSUM.size

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_event(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One frame."""
    return frame(encode_headers(headers), payload)


def event_headers(event_type: str, content_type: str | None = None) -> bytes:
    """The encoded headers of an ordinary event."""
    headers: dict[str, HeaderValue] = {":message-type": "event", ":event-type": event_type}
    if content_type is not None:
        headers[":content-type"] = content_type
    return encode_headers(headers)


def exception_headers(exception_type: str, content_type: str = "application/json") -> bytes:
    """The encoded headers of a modelled error that ends a stream."""
    return encode_headers(
        {":message-type": "exception", ":exception-type": exception_type, ":content-type": content_type}
    )


def encode_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    """Headers as `frame` takes them. ValueError for one that the format cannot hold."""
    encoded = b"".join(_encode_header(name, value) for name, value in headers.items())
    if len(encoded) > _MAX_HEADERS_BYTES:
        raise ValueError("the headers of an event are too long")
    return encoded


def frame(encoded_headers: bytes, payload: bytes) -> bytes:
    """One frame with headers encoded before."""
    prelude = _PRELUDE.pack(_OVERHEAD + len(encoded_headers) + len(payload), len(encoded_headers))
    message = b"".join((prelude, _CHECKSUM.pack(crc32(prelude)), encoded_headers, payload))
    return message + _CHECKSUM.pack(crc32(message))


def _encode_header(name: str, value: HeaderValue) -> bytes:
    encoded_name = name.encode()
    if not 0 < len(encoded_name) < 256:
        raise ValueError("the name of an event's header has 1 to 255 bytes")
    return bytes((len(encoded_name),)) + encoded_name + _encode_value(value)


def _encode_value(value: HeaderValue) -> bytes:
    if isinstance(value, bool):
        return b"\x00" if value else b"\x01"
    if isinstance(value, int):
        return struct.pack("!Bi", 4, value) if -(1 << 31) <= value < 1 << 31 else struct.pack("!Bq", 5, value)
    if isinstance(value, datetime):
        return struct.pack("!Bq", 8, (value - _EPOCH) // timedelta(milliseconds=1))
    kind, raw = (7, value.encode()) if isinstance(value, str) else (6, value)
    if len(raw) >= 1 << 16:
        raise ValueError("the value of an event's header is too long")
    return struct.pack("!BH", kind, len(raw)) + raw
