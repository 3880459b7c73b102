"""Bodies that become rows, and those that do not."""

import json
import math
import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.runtimes.contract import BadRequest, InvocationError, UnsupportedMediaType
from clary.runtimes.frameworks.xgboost.payloads import reader_for

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(FLOATS, min_size=width, max_size=width), min_size=1, max_size=5)
)


def read(content_type: str | None, body: bytes, features: int) -> list[float]:
    values: array[float] = array("f", [7.0] * features)  # rows of another request stand there already
    reader_for(content_type)(body, features, values)
    assert list(values[:features]) == [7.0] * features
    return list(values[features:])


def same(found: list[float], wanted: list[float]) -> bool:
    return struct.pack(f"{len(found)}f", *found) == struct.pack(f"{len(wanted)}f", *wanted)


@settings(max_examples=60, deadline=None)
@given(MATRICES, st.sampled_from([",", "\t", ";", "|", " "]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_of_any_shape(matrix: list[list[float]], delimiter: str, newline: str, ends: bool) -> None:
    text = newline.join(delimiter.join(map(repr, row)) for row in matrix) + (newline if ends else "")
    found = read("text/csv", text.encode(), len(matrix[0]))
    assert same(found, [value for row in matrix for value in row])


def test_blank_fields_are_missing() -> None:
    found = read("text/csv", b"1,,3\n,2, \r\n", 3)
    assert [math.isnan(value) for value in found] == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    "content_type", ["text/csv;label_size=0", "TEXT/CSV; charset=utf-8", "csv", "text/csv ; label_size=1"]
)
def test_parameters_behind_the_content_type_say_nothing(content_type: str) -> None:
    assert read(content_type, b"1,2", 2) == [1.0, 2.0]


@pytest.mark.parametrize(
    "body",
    [
        b"a,b",
        b"x1,x2\n1,2",
        b"1,2\n1",
        b"1,2\n\n3,4",
        b"   ",
        b"\n",
        b'"1","2"',
        b"1,2\n3,\xff",
        b"1,0x10",
        b"\0,1",
        b"a,b,c",
    ],
)
def test_csv_that_cannot_be_read_is_415(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        read("text/csv", body, 2)
    assert str(caught.value).startswith(
        "Loading csv data failed with Exception, please ensure data is in csv format:\n <class "
    )


@pytest.mark.parametrize(("body", "width"), [(b"1,2,3", 3), (b"1", 1), (b"1,2,3\n4,5,6", 3)])
def test_csv_of_the_wrong_width_is_400(body: bytes, width: int) -> None:
    with pytest.raises(BadRequest) as caught:
        read("text/csv", body, 2)
    assert str(caught.value) == (
        f"Unable to evaluate payload provided: Feature size of csv inference data {width} is not consistent with "
        "feature size of trained model 2."
    )


@pytest.mark.parametrize("content_type", ["text/libsvm", "text/x-libsvm; charset=utf-8", "libsvm", None])
def test_libsvm_indexes_are_the_trained_ones(content_type: str | None) -> None:
    found = read(content_type, b"0:1.5 2:-2\n1:3\r\n", 3)
    assert found[0] == 1.5
    assert found[2] == -2.0
    assert found[4] == 3.0
    assert [math.isnan(value) for value in found] == [False, True, False, True, False, True]


@pytest.mark.parametrize("body", [b"1,2", b"a:1", b"1:b", b"1:", b" "])
def test_libsvm_that_cannot_be_read_is_415(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="Loading libsvm data failed with Exception"):
        read("text/libsvm", body, 2)


@pytest.mark.parametrize("body", [b"2:1", b"-1:1", b"0:1\n99999999999:1"])
def test_libsvm_beyond_the_model_is_400(body: bytes) -> None:
    with pytest.raises(BadRequest, match="Unable to evaluate payload provided: Feature size of libsvm"):
        read("text/libsvm", body, 2)


def test_wide_and_sparse_rows_do_not_take_all_memory() -> None:
    with pytest.raises(BadRequest, match="too many at once"):
        read("text/libsvm", b"0:1\n" * 3000, 100_000)


@settings(max_examples=40, deadline=None)
@given(MATRICES)
def test_json_lines(matrix: list[list[float]]) -> None:
    forms: list[str] = ["%s", '{"features": %s}', '{"data": {"features": {"values": %s}}}']
    body = "\n".join(forms[number % 3] % json.dumps(row) for number, row in enumerate(matrix))
    found = read("application/jsonlines", body.encode(), len(matrix[0]))
    assert same(found, [value for row in matrix for value in row])


@pytest.mark.parametrize(
    "body", [b"{", b"1", b'{"a":[1,2]}', b'["1",2]', b"[true,1]", b"[" * 5000, b"[1,2]\n\n[1,2]"]
)
def test_json_lines_that_cannot_be_read_are_415(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        read("application/jsonlines", body, 2)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-npy", "image/png", "", "text/plain"]
)
def test_other_types_are_refused_by_name(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        reader_for(content_type)
    assert str(caught.value).startswith(f"{content_type} is not an accepted ContentType: csv, libsvm,")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["text/csv", "text/libsvm", "application/jsonlines", "application/x-recordio-protobuf"]),
    st.binary(min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_whatever_comes_is_rows_or_a_refusal(content_type: str, body: bytes, features: int) -> None:
    values: array[float] = array("f")
    try:
        reader_for(content_type)(body, features, values)
    except InvocationError as error:
        assert error.status in (400, 415)
    else:
        assert len(values) % features == 0
        assert values
