"""Bodies become the arrays that a graph takes, by the names, types and shapes that it declares.

    JSON          a list for the only input; or {"instances": [row, …]}, {"inputs": …}, {name: array},
                  or KServe's {"inputs": [{"name", "shape", "datatype", "data"}, …]}. Rows of several inputs are objects
    JSON Lines    a row a line
    CSV           rows of the only input, or one column for each; a first line with the inputs' names is a heading
    npy, npz      the only input; arrays by name

Numbers become what the graph declares, as long as nothing is lost that counts: 1.5 is no integer. A single row may come
without the brackets around it.
"""

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clary.runtimes.contract import BadRequest, UnsupportedMediaType
from clary.runtimes.frameworks.onnx.inputs import Input

JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"
NPY, NPZ = "application/x-npy", "application/x-npz"

LARGEST_UNPACKED_BYTES = 512 << 20

Array = np.ndarray[Any, Any]
Form = Literal["plain", "rows", "kserve"]
"""How a request was put, and so how its answer is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as arrays. `wanted` and `id` are KServe's."""

    arrays: Mapping[str, Array]
    form: Form = "plain"
    wanted: tuple[str, ...] = ()
    id: str = ""


Reader = Callable[[bytes, Sequence[Input]], Asked]


def reader_for(content_type: str | None) -> Reader:
    """JSON when there is no Content-Type. Raises `UnsupportedMediaType`."""
    kind = (content_type or JSON).partition(";")[0].strip().lower()
    reader = _READERS.get(kind)
    if reader is None:
        raise UnsupportedMediaType(
            f"{content_type} is not an accepted content type: there are {', '.join(_READERS)}"
        )
    return reader


def read_json(body: bytes, inputs: Sequence[Input]) -> Asked:
    value = _parsed(body)
    if isinstance(value, dict):
        return _read_object(value, inputs)
    return Asked(_of_rows(value, inputs) if _is_rows(value, inputs) else _only(value, inputs))


def read_json_lines(body: bytes, inputs: Sequence[Input]) -> Asked:
    rows = [_parsed(line) for line in body.splitlines() if line.strip()]
    return Asked(_of_rows(rows, inputs), "rows")


def read_csv(body: bytes, inputs: Sequence[Input]) -> Asked:
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode())) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnsupportedMediaType(f"the body cannot be read as CSV: {error}") from error
    names = [each.name for each in inputs]
    heading = [field.strip() for field in rows[0]] if rows else []
    if rows and set(heading) == set(names):
        rows = rows[1:]
        names = heading
    if not rows:
        raise UnsupportedMediaType("the body cannot be read as CSV: there are no rows in it")
    if len(inputs) == 1:
        return Asked({inputs[0].name: fitted(rows, inputs[0])})
    if any(len(row) != len(names) for row in rows):
        raise BadRequest(f"a row of CSV needs one column for each input: {', '.join(names)}")
    columns = {name: [[row[number]] for row in rows] for number, name in enumerate(names)}
    return Asked({each.name: fitted(columns[each.name], each) for each in inputs})


def read_npy(body: bytes, inputs: Sequence[Input]) -> Asked:
    return Asked(_only(_loaded(body), inputs))


def read_npz(body: bytes, inputs: Sequence[Input]) -> Asked:
    found = _loaded(body)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise UnsupportedMediaType(
            "the body cannot be read as npz: it is one array, which is application/x-npy"
        )
    assert found.zip is not None, "it is open"
    if sum([each.file_size for each in found.zip.infolist()]) > LARGEST_UNPACKED_BYTES:
        raise UnsupportedMediaType(
            f"the body cannot be read as npz: it unpacks to more than {LARGEST_UNPACKED_BYTES:,} bytes"
        )
    try:
        return Asked(_by_name(dict(found), inputs))
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise UnsupportedMediaType(f"the body cannot be read as npz: {error}") from error


_READERS: Mapping[str, Reader] = {
    JSON: read_json,
    JSON_LINES: read_json_lines,
    CSV: read_csv,
    NPY: read_npy,
    NPZ: read_npz,
}


def check_outputs(asked: Asked, outputs: Sequence[str]) -> None:
    """Raises `BadRequest` when an output is asked for that is not there."""
    if unknown := [name for name in asked.wanted if name not in outputs]:
        raise BadRequest(f"the graph gives {', '.join(outputs)}, and not {', '.join(unknown)}")


def fitted(value: Any, wanted: Input) -> Array:
    """An array of the type and shape that the input declares. Raises `BadRequest`."""
    try:
        array = _typed(value, wanted.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"input {wanted} takes {wanted.dtype.name}: {error}") from error
    if wanted.shape is None:
        return array
    if wanted.is_open and array.ndim == len(wanted.shape) - 1:
        array = array[np.newaxis]  # one row by itself
    if wanted.is_open and len(wanted.shape) == 1 and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # a column
    if array.ndim != len(wanted.shape) or any(
        size is not None and size != given for size, given in zip(wanted.shape, array.shape)
    ):
        raise BadRequest(f"input {wanted} does not take an array of shape {list(array.shape)}")
    return array


def _typed(value: Any, dtype: "np.dtype[Any]") -> Array:
    if dtype.kind == "f":
        return np.asarray(value, dtype=dtype)
    if dtype.kind == "O":
        array = np.asarray(value)
        return np.vectorize(str, otypes=[object])(array) if array.size else array.astype(object)
    array = np.asarray(value)
    if array.dtype.kind in "US":  # of CSV
        array = _numbers(array)
    if array.dtype.kind not in "biuf":
        raise ValueError("there is something in it that is no number, or its rows differ in length")
    if array.dtype.kind == "f" and not np.all(array == np.floor(array)):
        raise ValueError("there is a fraction in it")
    if array.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise ValueError(f"there is a number in it beyond {limits.min} to {limits.max}")
    return array.astype(dtype)


def _numbers(texts: Array) -> Array:
    """Whole numbers stay what they are: beyond 2**53 a decimal is another one."""
    try:
        return texts.astype(np.int64)
    except (ValueError, OverflowError):
        return texts.astype(np.float64)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnsupportedMediaType(f"the body cannot be read as JSON: {error}") from error


def _loaded(body: bytes) -> Any:
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:  # it says itself how large it is
        raise UnsupportedMediaType(f"the body cannot be read as numpy's: {error}") from error


def _read_object(value: dict[str, Any], inputs: Sequence[Input]) -> Asked:
    names = {each.name for each in inputs}
    if not set(value) <= names:
        if isinstance(value.get("instances"), list):
            return Asked(_of_rows(value["instances"], inputs), "rows")
        if "inputs" in value:
            return _read_inputs(value, inputs)
    return Asked(_by_name(value, inputs))


def _read_inputs(value: dict[str, Any], inputs: Sequence[Input]) -> Asked:
    given = value["inputs"]
    if isinstance(given, dict):
        return Asked(_by_name(given, inputs))
    if isinstance(given, list) and given and all(isinstance(each, dict) and "data" in each for each in given):
        wanted = tuple(str(each.get("name")) for each in value.get("outputs") or () if isinstance(each, dict))
        arrays = _by_name({str(each.get("name")): _tensor(each) for each in given}, inputs)
        return Asked(arrays, "kserve", wanted, str(value.get("id", "")))
    return Asked(_only(given, inputs))


def _tensor(given: dict[str, Any]) -> Any:
    """KServe's: the numbers one after the other, or nested already."""
    try:
        return np.asarray(given["data"]).reshape(given.get("shape", -1))
    except (ValueError, TypeError) as error:
        raise BadRequest(f"the data of input {given.get('name')} do not have its shape: {error}") from error


def _is_rows(value: Any, inputs: Sequence[Input]) -> bool:
    return len(inputs) > 1 and isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _of_rows(rows: Any, inputs: Sequence[Input]) -> Mapping[str, Array]:
    if not rows or any(isinstance(row, dict) for row in rows):
        columns: dict[str, list[Any]] = {each.name: [] for each in inputs}
        for row in rows:
            if not isinstance(row, dict) or set(row) != set(columns):
                raise BadRequest(f"a row has to name the inputs {', '.join(columns)}, and nothing else")
            for name, value in row.items():
                columns[name].append(value)
        return {each.name: fitted(columns[each.name], each) for each in inputs}
    return _only(rows, inputs)


def _only(value: Any, inputs: Sequence[Input]) -> Mapping[str, Array]:
    if len(inputs) != 1:
        names = ", ".join(map(str, inputs))
        raise BadRequest(
            f'the graph has several inputs, {names}: name them, as {{"inputs": {{NAME: VALUES}}}}'
        )
    return {inputs[0].name: fitted(value, inputs[0])}


def _by_name(given: Mapping[str, Any], inputs: Sequence[Input]) -> Mapping[str, Array]:
    names = [each.name for each in inputs]
    if set(given) != set(names):
        raise BadRequest(
            f"the graph has the inputs {', '.join(map(str, inputs))}; given are {', '.join(given)}"
        )
    return {each.name: fitted(given[each.name], each) for each in inputs}
