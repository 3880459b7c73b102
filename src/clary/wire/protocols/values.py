"""Scalars as text and back: what headers, paths, queries, form fields and XML elements have in common.

`read` takes text apart and raises ValueError; the protocol turns that into its own fault. `checked` and `written` are
strict about what handlers return and raise ShapeError.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from botocore.model import Shape

from clary.wire.protocols.base import ShapeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ISO8601 = "iso8601"
ISO8601_MILLIS = "iso8601-millis"
RFC822 = "rfc822"
UNIX = "unixtimestamp"

Scalar = str | int | float | bool | bytes | datetime

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ISO_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?\s?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_BITS = {"integer": 32, "long": 64}


def read(shape: Shape, text: str, timestamp_format: str = ISO8601) -> Scalar:
    """The value that `text` stands for. ValueError when it stands for none."""
    kind = shape.type_name
    if kind == "timestamp":
        return read_timestamp(text, shape.serialization.get("timestampFormat", timestamp_format))
    if kind == "string" or kind == "character":
        return text
    if kind in _BITS:
        return read_integer(shape, text)
    return _READERS[kind](text.strip())


def read_integer(shape: Shape, text: str) -> int:
    text = text.strip()
    if not _INTEGER.fullmatch(text):
        raise ValueError("not an integer")
    return in_range(shape, int(text))


def in_range(shape: Shape, value: int) -> int:
    """`value`, when the shape has the bits for it."""
    bits = _BITS[shape.type_name]
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"not a {bits}-bit integer")
    return value


def read_float(text: str) -> float:
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    if len(text) > 400 or not _DECIMAL.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def read_blob(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def read_timestamp(value: str | int | float, timestamp_format: str) -> datetime:
    """A number is seconds since 1970; text is read in the given format, or as ISO 8601, or as a number."""
    if not isinstance(value, str):
        return _from_epoch(value)
    text = value.strip()
    try:
        if _DECIMAL.fullmatch(text):
            return _from_epoch(read_float(text))
        if _ISO_TIME.fullmatch(text):
            return _as_utc(datetime.fromisoformat(text.replace(" +", "+").replace(",", ".")))
        if timestamp_format == RFC822:
            return _as_utc(parsedate_to_datetime(text))
    except (ValueError, OverflowError, TypeError, IndexError) as error:
        raise ValueError("not a time") from error
    raise ValueError("not a time")


def checked(shape: Shape, value: object, path: str) -> Scalar:
    """`value`, when it has the type that the scalar `shape` asks for; a subclass of str comes back as plain str."""
    kind = shape.type_name
    if kind not in _PYTHON_TYPES:
        raise ShapeError(path, f"{shape.name} cannot be written as text")
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise ShapeError(path, f"a {kind} is due, not {type(value).__name__}")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ShapeError(path, "a time needs its zone")
        return value.astimezone(UTC)
    if kind in _BITS and isinstance(value, int):
        try:
            return in_range(shape, int(value))
        except ValueError as error:
            raise ShapeError(path, str(error)) from error
    if isinstance(value, str):
        return str.__str__(value)
    if kind == "blob":
        return bytes(value)
    return float(value) if kind in ("float", "double") else value


def written(shape: Shape, value: object, path: str, timestamp_format: str = ISO8601) -> str:
    """`value` as text."""
    scalar = checked(shape, value, path)
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    if isinstance(scalar, datetime):
        return write_timestamp(scalar, shape.serialization.get("timestampFormat", timestamp_format))
    if isinstance(scalar, bytes):
        return base64.b64encode(scalar).decode("ascii")
    if isinstance(scalar, float):
        return special_float(scalar) or repr(scalar)
    return str(scalar)


def write_timestamp(value: datetime, timestamp_format: str) -> str:
    if timestamp_format == RFC822:
        return format_datetime(value, usegmt=True)
    if timestamp_format == UNIX:
        return repr(epoch_seconds(value))
    if timestamp_format == ISO8601_MILLIS or value.microsecond:
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z".rjust(24, "0")
    return f"{value:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")


def epoch_seconds(value: datetime) -> float:
    """Seconds since 1970 with AWS's precision, milliseconds."""
    return (value - EPOCH) // timedelta(milliseconds=1) / 1000


def special_float(value: float) -> str | None:
    """The name of a float that is no number in JSON."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return None


def _read_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueError("not a boolean")
    return lowered == "true"


def _from_epoch(seconds: float) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
    except (OverflowError, ValueError) as error:
        raise ValueError("not a time") from error


def _as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_READERS: dict[str, Callable[[str], Scalar]] = {
    "float": read_float,
    "double": read_float,
    "boolean": _read_boolean,
    "blob": read_blob,
}

_PYTHON_TYPES: dict[str, type[Any] | tuple[type[Any], ...]] = {
    "string": str,
    "character": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": datetime,
    "blob": (bytes, bytearray, memoryview),
}
