"""The few protobuf messages that serving needs, read and written without a protobuf library.

A SavedModel comes with its signatures as a `MetaGraphDef`, and an example goes in as a serialized `tf.train.Example`.
That is a dozen fields of a stable format; TensorFlow's own classes would cost importing all of it.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIGN = 1 << 63

Value = int | bytes
Feature = Sequence[bytes] | Sequence[float] | Sequence[int]


class MalformedMessage(ValueError):
    """Bytes that are no protobuf message."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of a signature. `shape` is None when even its rank is open; an open dimension is -1."""

    name: str  # in the graph, `operation:index`; empty for what is no plain tensor
    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SignatureDef:
    inputs: Mapping[str, TensorInfo]  # sorted by name, as the answers are
    outputs: Mapping[str, TensorInfo]
    method: str


def read_signatures(meta_graph: bytes) -> dict[str, SignatureDef]:
    """The signatures of a serialized `MetaGraphDef`. Raises `MalformedMessage`."""
    return {name: _signature(value) for name, value in _map_entries(_each(memoryview(meta_graph), 5)) if name}


def session_config(intra_op_threads: int, inter_op_threads: int) -> bytes:
    """A `ConfigProto`."""
    return b"\x10" + _varint(intra_op_threads) + b"\x28" + _varint(inter_op_threads)


def example(features: Mapping[str, Feature]) -> bytes:
    """A `tf.train.Example`. Two of them one after the other are one with the features of both."""
    entries = [
        _field(1, _field(1, name.encode()) + _field(2, _feature(values))) for name, values in features.items()
    ]
    return _field(1, b"".join(entries))


def _signature(data: memoryview) -> SignatureDef:
    method = b"".join(_each(data, 3)).decode()
    return SignatureDef(_tensors(_each(data, 1)), _tensors(_each(data, 2)), method)


def _tensors(entries: Iterator[memoryview]) -> dict[str, TensorInfo]:
    return {name: _tensor(value) for name, value in sorted(_map_entries(entries), key=lambda entry: entry[0])}


def _tensor(data: memoryview) -> TensorInfo:
    name, dtype, shape = "", 0, None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 3 and isinstance(value, memoryview):
            shape = _shape(value)
    return TensorInfo(name, dtype, shape)


def _shape(data: memoryview) -> tuple[int, ...] | None:
    if any(number == 3 and value for number, value in _fields(data)):
        return None
    return tuple(_size(dimension) for dimension in _each(data, 2))


def _size(dimension: memoryview) -> int:
    sizes = [value for number, value in _fields(dimension) if number == 1 and isinstance(value, int)]
    size = sizes[-1] if sizes else 0
    return size - (1 << 64) if size & _SIGN else size


def _map_entries(entries: Iterator[memoryview]) -> Iterator[tuple[str, memoryview]]:
    for entry in entries:
        key = b"".join(_each(entry, 1)).decode()
        yield key, next(_each(entry, 2), memoryview(b""))


def _each(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, value in _fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place, end = 0, len(data)
    while place < end:
        key, place = _read_varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _read_varint(data, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _read_varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise MalformedMessage(f"a field of kind {kind}")
        if place + size > end:
            raise MalformedMessage("a field goes beyond the end")
        yield key >> 3, data[place : place + size]
        place += size


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise MalformedMessage("a number does not end")


def _feature(values: Feature) -> bytes:
    """Bytes, float and int64 lists have the numbers 1, 2 and 3; numbers are packed."""
    if not values:
        return b""
    first = values[0]
    if isinstance(first, bytes):
        return _field(1, b"".join(_field(1, value) for value in values if isinstance(value, bytes)))
    if isinstance(first, float):
        return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
    return _field(3, _field(1, b"".join(_varint(int(value)) for value in values)))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
