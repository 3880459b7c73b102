"""Bodies become rows of numbers: CSV, libsvm, JSON Lines and recordIO-protobuf, as the built-in algorithm reads them.

All readers append to one array of 32-bit floats, so that the rows of many requests stand together for one
prediction. NaN is a missing value. What cannot be read raises `UnsupportedMediaType` with the container's
sentence; rows of the wrong width raise `BadRequest`. After an error the array may hold a part of a row: the
caller cuts it off.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Sequence

from clary.runtimes.contract import BadRequest, UnsupportedMediaType
from clary.runtimes.frameworks.xgboost.recordio import RecordError, read_features

MOST_VALUES = 1 << 28  # a gigabyte of them: narrow text can stand for very wide rows
_MISSING = float("nan")
_DELIMITERS = b",\t;| "

Reader = Callable[[bytes, int, "array[float]"], None]
"""Appends the rows of a body, each of so many features, to the array."""

ACCEPTED_TYPES = (
    "csv",
    "libsvm",
    "recordio-protobuf",
    "text/csv",
    "text/libsvm",
    "text/x-libsvm",
    "application/jsonlines",
    "application/x-recordio-protobuf",
)


def reader_for(content_type: str | None) -> Reader:
    """The reader for a Content-Type; parameters behind `;` say nothing here, and no type means libsvm."""
    if content_type is None:
        return read_libsvm
    reader = _READERS.get(content_type.partition(";")[0].strip().lower())
    if reader is None:
        accepted = ", ".join(ACCEPTED_TYPES)
        raise UnsupportedMediaType(f"{content_type} is not an accepted ContentType: {accepted}.")
    return reader


def read_csv(body: bytes, features: int, values: "array[float]") -> None:
    """Rows without a label column."""
    fields = body.split(b",", features)
    if len(fields) == features:  # the usual request: one row
        mark = len(values)
        try:
            values.extend(map(float, fields))
            return
        except ValueError:  # blank fields, several rows, another delimiter, or no numbers at all
            del values[mark:]
    try:
        _read_csv_lines(body.strip(), features, values)
    except (ValueError, UnicodeDecodeError) as error:
        raise _unreadable("csv", error) from error


def read_libsvm(body: bytes, features: int, values: "array[float]") -> None:
    """`index:value` pairs, the indexes as the model was trained with them; other words are passed over."""
    try:
        rows = [_libsvm_row(line) for line in body.strip().split(b"\n")]
        if not any(rows):
            raise ValueError("there is no index:value pair in it")
    except ValueError as error:
        raise _unreadable("libsvm", error) from error
    _append_sparse("libsvm", rows, features, values)


def read_json_lines(body: bytes, features: int, values: "array[float]") -> None:
    """A row a line: a list of numbers, or an object that has it as `features`; null is missing."""
    try:
        for line in body.strip().split(b"\n"):
            row = _json_row(json.loads(line))
            _check_width("jsonlines", len(row), features)
            values.extend(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable("jsonlines", error) from error


def read_recordio(body: bytes, features: int, values: "array[float]") -> None:
    try:
        records = read_features(body)
    except RecordError as error:
        raise UnsupportedMediaType(
            "Loading recordio-protobuf data failed with Exception, please ensure data is in "
            f"recordio-protobuf format: {error}"
        ) from error
    sparse = []
    for keys, numbers in records:
        if keys is None:
            _check_width("recordio-protobuf", len(numbers), features)
        sparse.append(list(zip(range(len(numbers)) if keys is None else keys, numbers)))
    _append_sparse("recordio-protobuf", sparse, features, values)


_READERS: dict[str, Reader] = {
    "csv": read_csv,
    "text/csv": read_csv,
    "libsvm": read_libsvm,
    "text/libsvm": read_libsvm,
    "text/x-libsvm": read_libsvm,
    "application/jsonlines": read_json_lines,
    "recordio-protobuf": read_recordio,
    "application/x-recordio-protobuf": read_recordio,
}


def _read_csv_lines(text: bytes, features: int, values: "array[float]") -> None:
    if not text:
        raise ValueError("there are no rows in it")
    lines = text.split(b"\n")
    delimiter = _guess_delimiter(lines[0])
    width = len(lines[0].split(delimiter))
    for number, line in enumerate(lines, 1):
        row = line.split(delimiter)
        if len(row) != width:
            raise ValueError(f"row {number} has {len(row)} fields, the first one {width}")
        mark = len(values)
        try:
            values.extend(map(float, row))
        except ValueError:
            del values[mark:]
            values.extend([float(field) if field.strip() else _MISSING for field in row])
    _check_width("csv", width, features)


def _guess_delimiter(line: bytes) -> bytes:
    """The container sniffs it from the first line; whatever is no delimiter there leaves the comma."""
    line = line.strip()
    for delimiter in _DELIMITERS:
        if delimiter in line:
            return bytes([delimiter])
    return b","


def _libsvm_row(line: bytes) -> list[tuple[int, float]]:
    pairs = []
    for word in line.split():
        index, colon, value = word.partition(b":")
        if colon:
            pairs.append((int(index), float(value)))
    return pairs


def _json_row(line: object) -> Sequence[float]:
    found = line
    while isinstance(found, dict):
        found = next((found[name] for name in ("features", "data", "values") if name in found), None)
    if not isinstance(found, list):
        raise ValueError("a line is neither a list of numbers nor an object with features")
    return [_MISSING if value is None else _number(value) for value in found]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _append_sparse(
    kind: str, rows: Sequence[Iterable[tuple[int, float]]], features: int, values: "array[float]"
) -> None:
    if len(rows) * features > MOST_VALUES:
        raise BadRequest(
            f"Unable to evaluate payload provided: {len(rows)} rows of {features} features are too many at once"
        )
    blank = values[:0]  # of the same type
    blank.extend([_MISSING] * features)
    for pairs in rows:
        row = blank[:]
        for index, value in pairs:
            if not 0 <= index < features:
                raise BadRequest(
                    f"Unable to evaluate payload provided: Feature size of {kind} inference data {index + 1} is "
                    f"larger than feature size of trained model {features}."
                )
            row[index] = value
        values.extend(row)


def _check_width(kind: str, width: int, features: int) -> None:
    if width != features:
        raise BadRequest(
            f"Unable to evaluate payload provided: Feature size of {kind} inference data {width} is not consistent "
            f"with feature size of trained model {features}."
        )


def _unreadable(kind: str, error: Exception) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Loading {kind} data failed with Exception, please ensure data is in {kind} format:\n"
        f" {type(error)}\n {error}"
    )
