"""Shapes as JSON, both ways: the bodies of AWS JSON 1.0 and 1.1, of REST-JSON, and of their events."""

import binascii
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.protocols import values
from clary.wire.protocols.base import (
    MAX_DEPTH,
    Member,
    list_items,
    map_entries,
    present_members,
    wire_name,
)


def decode_body(shape: StructureShape | None, body: bytes) -> dict[str, Any]:
    """The members in a JSON body; none in an empty one. Raises SerializationException."""
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed("The request body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise _malformed("The request body is not a JSON object.")
    return {} if shape is None else _decode_structure(shape, document, 0)


def encode_body(shape: Shape, value: object, path: str) -> bytes:
    """A structure of an answer as JSON."""
    return msgspec.json.encode(_encode(shape, value, path))


def encode_members(members: Iterable[Member], path: str) -> bytes:
    """Checked members of an answer as one JSON object."""
    return msgspec.json.encode(_encode_object(members, path))


def _encode(shape: Shape, value: object, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _encode_object(present_members(shape, value, path), path)
    if isinstance(shape, ListShape):
        return [_encode(shape.member, item, where) for where, item in list_items(value, path)]
    if isinstance(shape, MapShape):
        return {key: _encode(shape.value, item, where) for where, key, item in map_entries(value, path)}
    return _encode_scalar(shape, value, path)


def _encode_object(members: Iterable[Member], path: str) -> dict[str, Any]:
    return {wire_name(shape, name): _encode(shape, item, f"{path}.{name}") for name, shape, item in members}


def _encode_scalar(shape: Shape, value: object, path: str) -> Any:
    scalar = values.checked(shape, value, path)
    if shape.type_name == "timestamp":
        return _encode_timestamp(shape, scalar, path)
    if isinstance(scalar, bytes):
        return binascii.b2a_base64(scalar, newline=False).decode("ascii")
    if isinstance(scalar, float):
        return values.special_float(scalar) or scalar
    return scalar


def _encode_timestamp(shape: Shape, value: Any, path: str) -> Any:
    timestamp_format = shape.serialization.get("timestampFormat", values.UNIX)
    if timestamp_format == values.UNIX:
        return values.epoch_seconds(value)
    return values.written(shape, value, path)


def _decode(shape: Shape, value: Any, depth: int) -> Any:
    """One value that is not null."""
    if depth > MAX_DEPTH:
        raise _malformed("The request body is nested too deeply.")
    if isinstance(shape, StructureShape):
        return _decode_structure(shape, value, depth)
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise _malformed("Expected list or null")
        return [None if item is None else _decode(shape.member, item, depth + 1) for item in value]
    if isinstance(shape, MapShape):
        if not isinstance(value, dict):
            raise _malformed("Expected map or null")
        return {
            key: None if item is None else _decode(shape.value, item, depth + 1)
            for key, item in value.items()
        }
    return _SCALARS[shape.type_name](shape, value)


def _decode_structure(shape: StructureShape, value: Any, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("Expected structure or null")
    decoded = {}
    for name, member in shape.members.items():
        item = value.get(wire_name(member, name))
        if item is not None:
            decoded[name] = _decode(member, item, depth + 1)
    return decoded


def _string(shape: Shape, value: Any) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, "a String")
    return value


def _integer(shape: Shape, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    target = "an Integer" if shape.type_name == "integer" else "a Long"
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(value, target)
    try:
        return values.in_range(shape, value)
    except ValueError as error:
        raise _mismatch(value, target) from error


def _float(shape: Shape, value: Any) -> float:
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return values.read_float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, "a Float" if shape.type_name == "float" else "a Double")
    try:
        return float(value)
    except OverflowError as error:
        raise _mismatch(value, "a Double") from error


def _boolean(shape: Shape, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(value, "a Boolean")
    return value


def _blob(shape: Shape, value: Any) -> bytes:
    if not isinstance(value, str):
        raise _mismatch(value, "a Blob")
    try:
        return values.read_blob(value)
    except ValueError as error:
        raise _malformed("A blob is not valid base64.") from error


def _timestamp(shape: Shape, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _mismatch(value, "a Timestamp")
    try:
        return values.read_timestamp(value, shape.serialization.get("timestampFormat", values.UNIX))
    except ValueError as error:
        raise _mismatch(value, "a Timestamp") from error


def _mismatch(value: Any, target: str) -> Fault:
    """In the words of AWS's own JSON reader."""
    if isinstance(value, dict):
        return _malformed("Start of structure or map found where not expected.")
    if isinstance(value, list):
        return _malformed("Start of list found where not expected.")
    if isinstance(value, bool):
        found = "TRUE_VALUE" if value else "FALSE_VALUE"
    else:
        found = "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
    return _malformed(f"{found} can not be converted to {target}")


def _malformed(message: str) -> Fault:
    return Fault("SerializationException", message)


_SCALARS: dict[str, Callable[[Shape, Any], Any]] = {
    "string": _string,
    "character": _string,
    "integer": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "boolean": _boolean,
    "blob": _blob,
    "timestamp": _timestamp,
}
