"""The events of a modelled event stream as frames: what an event-stream member of an answer becomes.

A handler gives such a member as an iterable of one-member dictionaries, `{"PayloadPart": {"Bytes": b"…"}}`. A member
that is a modelled error ends the stream as an exception frame.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from botocore.model import Shape, StructureShape

from clary.wire.protocols import values
from clary.wire.protocols.base import ShapeError, present_members
from clary.wire.protocols.eventstream import HeaderValue, encode_event

BodyEncoder = Callable[[Shape, Any, str], bytes]


def event_frames(
    stream: Shape,
    events: Iterable[Mapping[str, Any]],
    encode_body: BodyEncoder,
    content_type: str,
    first: bytes = b"",
) -> Iterator[bytes]:
    """Each event's frame as soon as the event is there; `first` goes before them."""
    if not isinstance(stream, StructureShape):
        raise ShapeError(stream.name, "an event stream is a structure")
    if first:
        yield first
    for event in events:
        yield _event_frame(stream, event, encode_body, content_type)


def initial_response(body: bytes) -> bytes:
    """The frame in which a JSON service sends the members beside the stream."""
    return encode_event(
        {
            ":message-type": "event",
            ":event-type": "initial-response",
            ":content-type": "application/x-amz-json-1.1",
        },
        body,
    )


def _event_frame(
    stream: StructureShape, event: Mapping[str, Any], encode_body: BodyEncoder, content_type: str
) -> bytes:
    if len(event) != 1:
        raise ShapeError(stream.name, "an event has one member")
    [(name, value)] = event.items()
    shape = stream.members.get(name)
    if not isinstance(shape, StructureShape):
        raise ShapeError(stream.name, f"there is no event {name}")
    if shape.metadata.get("exception"):
        headers: dict[str, HeaderValue] = {":message-type": "exception", ":exception-type": name}
        return encode_event(headers | {":content-type": content_type}, encode_body(shape, value, name))
    payload, payload_type = _payload(shape, value, encode_body, content_type)
    headers = {":message-type": "event", ":event-type": name}
    if payload_type is not None:
        headers[":content-type"] = payload_type
    return encode_event(headers, payload)


def _payload(
    shape: StructureShape, value: Any, encode_body: BodyEncoder, content_type: str
) -> tuple[bytes, str | None]:
    """What an event carries and its type: its payload member, or all its members; nothing when it has none."""
    members = list(present_members(shape, value, shape.name))
    for name, member, item in members:
        if member.serialization.get("eventpayload"):
            return _payload_member(member, item, encode_body, content_type, f"{shape.name}.{name}")
    if not members and any(member.serialization.get("eventpayload") for member in shape.members.values()):
        return b"", None
    return (encode_body(shape, value, shape.name), content_type) if shape.members else (b"", None)


def _payload_member(
    member: Shape, value: Any, encode_body: BodyEncoder, content_type: str, path: str
) -> tuple[bytes, str]:
    if member.type_name not in ("blob", "string"):
        return encode_body(member, value, path), content_type
    scalar = values.checked(member, value, path)
    if isinstance(scalar, bytes):
        return scalar, "application/octet-stream"
    return str(scalar).encode(), "text/plain"
