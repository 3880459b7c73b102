"""Shapes as JSON, both ways: the bodies of AWS JSON 1.0 and 1.1, of REST-JSON, and of their events."""

import binascii
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from botocore.model import Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.protocols import values
from clary.wire.protocols.base import Member
from clary.wire.protocols.documents import DocumentFormat, malformed

_NAMED_FLOATS = ("NaN", "Infinity", "-Infinity")

# What AWS's own JSON reader calls the types of its target.
_TARGETS = {
    "string": "a String",
    "character": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean",
    "blob": "a Blob",
    "timestamp": "a Timestamp",
}


def decode_body(shape: StructureShape | None, body: bytes) -> dict[str, Any]:
    """The members in a JSON body; none in an empty one. Raises SerializationException."""
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise malformed("The request body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise malformed("The request body is not a JSON object.")
    return {} if shape is None else _JSON.read_structure(shape, document)


def encode_body(shape: Shape, value: object, path: str) -> bytes:
    """A structure of an answer as JSON."""
    return msgspec.json.encode(_JSON.write(shape, value, path))


def encode_members(members: Iterable[Member], path: str) -> bytes:
    """Checked members of an answer as one JSON object."""
    return msgspec.json.encode(_JSON.write_members(members, path))


class _Json(DocumentFormat):
    def read_blob(self, shape: Shape, value: Any) -> bytes:
        if not isinstance(value, str):
            raise self.mismatch(shape, value)
        try:
            return values.read_blob(value)
        except ValueError as error:
            raise malformed("A blob is not valid base64.") from error

    def read_timestamp(self, shape: Shape, value: Any) -> datetime:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.mismatch(shape, value)
        try:
            return values.read_timestamp(value, _timestamp_format(shape))
        except ValueError as error:
            raise self.mismatch(shape, value) from error

    def named_float(self, value: Any) -> float | None:
        return values.read_float(value) if isinstance(value, str) and value in _NAMED_FLOATS else None

    def write_scalar(self, shape: Shape, scalar: values.Scalar, path: str) -> Any:
        if isinstance(scalar, datetime):
            if _timestamp_format(shape) == values.UNIX:
                return values.epoch_seconds(scalar)
            return values.written(shape, scalar, path)
        if isinstance(scalar, bytes):
            return binascii.b2a_base64(scalar, newline=False).decode("ascii")
        if isinstance(scalar, float):
            return values.special_float(scalar) or scalar
        return scalar

    def mismatch(self, shape: Shape, value: Any) -> Fault:
        """In the words of AWS's own JSON reader."""
        if shape.type_name not in _TARGETS:
            return malformed(f"Expected {shape.type_name} or null")
        if isinstance(value, dict):
            return malformed("Start of structure or map found where not expected.")
        if isinstance(value, list):
            return malformed("Start of list found where not expected.")
        if isinstance(value, bool):
            found = "TRUE_VALUE" if value else "FALSE_VALUE"
        else:
            found = "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
        return malformed(f"{found} can not be converted to {_TARGETS[shape.type_name]}")


def _timestamp_format(shape: Shape) -> str:
    return str(shape.serialization.get("timestampFormat", values.UNIX))


_JSON = _Json()
