"""Reads `application/x-recordio-protobuf`: recordIO frames, each holding one protobuf `Record`.

Only what a prediction needs of the format: the tensor `values` in a record's features. The messages, with the
numbers of their fields:

    Record   1 features: map<string, Value>
    Value    2 float32_tensor | 3 float64_tensor | 7 int32_tensor
    Tensor   1 values (packed) | 2 keys (packed uint64: then it is sparse) | 3 shape
"""

import struct
from array import array
from collections.abc import Iterator, Sequence

_MAGIC = 0xCED7230A
_TENSORS = {2: "f", 3: "d", 7: "i"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Features = tuple[Sequence[int] | None, Sequence[float]]
"""Keys (None when every feature has a value, in order) and values of one record."""


class RecordError(ValueError):
    """The body is no recordIO of such records."""


def read_features(body: bytes) -> list[Features]:
    found = [_features_of(record) for record in _frames(body)]
    if not found:
        raise RecordError("No records found in RecordIO-Protobuf data")
    return found


def _frames(body: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(body):
        if offset + 8 > len(body):
            raise RecordError(f"Truncated record at offset {offset}")
        magic, length = struct.unpack_from("<II", body, offset)
        if magic != _MAGIC:
            raise RecordError(f"Invalid RecordIO magic at offset {offset}")
        offset += 8
        if offset + length > len(body):
            raise RecordError(f"Truncated record at offset {offset}")
        yield body[offset : offset + length]
        offset += (length + 3) // 4 * 4


def _features_of(record: bytes) -> Features:
    for number, entry in _fields(record):
        if number != 1 or not isinstance(entry, bytes):
            continue
        parts = dict(_fields(entry))
        if parts.get(1) == b"values" and isinstance(value := parts.get(2, b""), bytes):
            return _tensor_of(value)
    raise RecordError("a record has no features named values")


def _tensor_of(value: bytes) -> Features:
    for number, tensor in _fields(value):
        if number in _TENSORS and isinstance(tensor, bytes):
            return _read_tensor(tensor, _TENSORS[number])
    raise RecordError("a record's features are neither float32, float64 nor int32")


def _read_tensor(tensor: bytes, kind: str) -> Features:
    numbers: list[float] = []
    keys: list[int] = []
    for number, content in _fields(tensor):
        if number == 1:
            numbers += _numbers(content, kind)
        elif number == 2:
            keys += _varints(content) if isinstance(content, bytes) else [content]
    if keys and len(keys) != len(numbers):
        raise RecordError(f"a record has {len(keys)} keys for {len(numbers)} values")
    return keys or None, numbers


def _numbers(content: bytes | int, kind: str) -> Sequence[float]:
    if kind == "i":
        signed = _varints(content) if isinstance(content, bytes) else [content]
        return [value - (1 << 64) if value >> 63 else value for value in signed]
    if not isinstance(content, bytes) or len(content) % array(kind).itemsize:
        raise RecordError("a record's values end in the middle of a number")
    return array(kind, content)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers with their content: bytes for what has a length or a fixed one, a number for a varint."""
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        if tag & 7 == _VARINT:
            value, offset = _varint(message, offset)
            yield tag >> 3, value
            continue
        size, offset = _size(message, offset, tag & 7)
        if offset + size > len(message):
            raise RecordError("a record's field is longer than the record")
        yield tag >> 3, message[offset : offset + size]
        offset += size


def _size(message: bytes, offset: int, wire_type: int) -> tuple[int, int]:
    if wire_type == _BYTES:
        return _varint(message, offset)
    if wire_type in (_FIXED32, _FIXED64):
        return (4 if wire_type == _FIXED32 else 8), offset
    raise RecordError(f"a record has a field of wire type {wire_type}")


def _varints(content: bytes) -> list[int]:
    values, offset = [], 0
    while offset < len(content):
        value, offset = _varint(content, offset)
        values.append(value)
    return values


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if offset >= len(message) or shift > 63:
            raise RecordError("a record ends in the middle of a number")
        byte = message[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, offset
