"""recordIO-protobuf, written here by hand from the format's description."""

import contextlib
import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.runtimes.contract import BadRequest, UnsupportedMediaType
from clary.runtimes.frameworks.xgboost.payloads import read_recordio
from clary.runtimes.frameworks.xgboost.recordio import RecordError, read_features

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(parts) + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(tensor: bytes, kind: int = 2) -> bytes:
    entry = field(1, b"values") + field(2, field(kind, tensor))
    label = field(2, field(1, b"values") + field(2, field(2, field(1, struct.pack("<f", 1.0)))))
    return label + field(1, entry)


def frame(content: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4)


@given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_dense_records(rows: list[list[float]]) -> None:
    body = b"".join(frame(record(field(1, struct.pack("<3f", *row)))) for row in rows)
    values: array[float] = array("f")
    read_recordio(body, 3, values)
    assert list(values) == [value for row in rows for value in row]


def test_doubles_whole_numbers_and_values_that_are_not_packed() -> None:
    assert read_features(frame(record(field(1, struct.pack("<2d", 1.5, -2)), kind=3))) == [
        (None, [1.5, -2.0])
    ]
    whole = field(1, varint(5) + varint((1 << 64) - 1))
    assert read_features(frame(record(whole, kind=7))) == [(None, [5, -1])]
    single = varint(1 << 3 | 5) + struct.pack("<f", 2.5)
    assert read_features(frame(record(single + single))) == [(None, [2.5, 2.5])]


def test_sparse_records_leave_the_rest_missing() -> None:
    tensor = field(1, struct.pack("<2f", 1.5, 2.5)) + field(2, varint(0) + varint(2)) + field(3, varint(4))
    values: array[float] = array("f")
    read_recordio(frame(record(tensor)), 4, values)
    assert [values[0], values[2]] == [1.5, 2.5]
    assert math.isnan(values[1])
    assert math.isnan(values[3])


def test_the_wrong_width_is_400() -> None:
    with pytest.raises(BadRequest, match="Feature size of recordio-protobuf inference data 2"):
        read_recordio(frame(record(field(1, struct.pack("<2f", 1, 2)))), 3, array("f"))


@pytest.mark.parametrize(
    "body", [b"", b"junk", frame(b""), frame(b"\xff"), frame(record(b""))[:-5], b"\0" * 20]
)
def test_what_is_no_record_is_415(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="Loading recordio-protobuf data failed"):
        read_recordio(body, 3, array("f"))


@given(st.binary(max_size=80))
def test_any_bytes_are_records_or_an_error(content: bytes) -> None:
    with contextlib.suppress(RecordError):
        assert read_features(frame(content))
