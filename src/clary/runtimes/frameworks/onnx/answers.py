"""What a graph gave becomes a body: one output as it is, several as an object of them.

JSON          the output's list, or {name: list}; {"predictions": [row, …]} where rows were asked for as instances;
              KServe's form where the request had it
JSON Lines    a row a line
CSV           a row a line, the columns of all outputs one after the other
npy           the only output
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clary.runtimes.contract import InvocationResponse, NotAcceptable
from clary.runtimes.frameworks.onnx.payloads import CSV, JSON, JSON_LINES, NPY, Asked

ACCEPTED = (JSON, JSON_LINES, CSV, NPY)
_CONTENT_TYPES = {CSV: "text/csv; charset=utf-8"}
_DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    "object": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def kind_for(accept: str | None, default: str) -> str:
    """The form that an Accept header asks for. Raises `NotAcceptable`."""
    for each in (accept or "").split(","):
        kind = each.partition(";")[0].strip().lower()
        if kind in ("", "*/*"):
            kind = default
        if kind in ACCEPTED:
            return kind
    raise NotAcceptable(f"no answer has the form {accept}: there are {', '.join(ACCEPTED)}")


def answer(kind: str, asked: Asked, names: Sequence[str], values: Sequence[Any]) -> InvocationResponse:
    """Raises `NotAcceptable` when these outputs do not have that form."""
    return InvocationResponse(200, _CONTENT_TYPES.get(kind, kind), _body(kind, asked, names, values))


def _body(kind: str, asked: Asked, names: Sequence[str], values: Sequence[Any]) -> bytes:
    if kind == JSON:
        return json.dumps(_jsonable(asked, names, values), default=plain).encode()
    if kind == JSON_LINES:
        return "".join(f"{json.dumps(row, default=plain)}\n" for row in _rows(names, values)).encode()
    if kind == NPY:
        return _npy(names, values)
    return _csv(names, values)


def _jsonable(asked: Asked, names: Sequence[str], values: Sequence[Any]) -> Any:
    if asked.form == "kserve":
        outputs = [_tensor(name, value) for name, value in zip(names, values, strict=True)]
        return {"model_name": "model", **({"id": asked.id} if asked.id else {}), "outputs": outputs}
    if asked.form == "rows":
        return {"predictions": _rows(names, values)}
    if len(values) == 1:
        return values[0]
    return dict(zip(names, values, strict=True))


def plain(value: Any) -> Any:
    """For `json.dumps`: what it does not know are numpy's arrays and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _rows(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    lists = [value.tolist() if isinstance(value, np.ndarray) else list(value) for value in values]
    if any(not isinstance(each, list) or len(each) != len(lists[0]) for each in lists):
        raise NotAcceptable(
            "the graph's outputs do not have a row for each row of its inputs: accept application/json"
        )
    if len(lists) == 1:
        return lists[0]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def _tensor(name: str, value: Any) -> Mapping[str, Any]:
    array = np.asarray(value)
    datatype = _DATATYPES.get(array.dtype.name, "BYTES")
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def _npy(names: Sequence[str], values: Sequence[Any]) -> bytes:
    array = np.asarray(values[0])
    if len(values) > 1 or array.dtype.kind == "O":
        raise NotAcceptable(
            f"npy holds one array of numbers, the graph gives {', '.join(names)}: accept application/json"
        )
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _csv(names: Sequence[str], values: Sequence[Any]) -> bytes:
    arrays = [np.asarray(value) for value in values]
    rows = len(arrays[0]) if arrays[0].ndim else -1
    if any(each.ndim not in (1, 2) or len(each) != rows or _has_maps(each) for each in arrays):
        raise NotAcceptable(f"{', '.join(names)} cannot be written as rows of CSV: accept application/json")
    columns = [each.reshape(rows, -1).tolist() for each in arrays]
    return "".join(
        ",".join(_field(cell) for part in row for cell in part) + "\n" for row in zip(*columns, strict=True)
    ).encode()


def _has_maps(array: "np.ndarray[Any, Any]") -> bool:
    return array.dtype.kind == "O" and any(isinstance(each, dict) for each in array.flat)


def _field(cell: Any) -> str:
    text = cell if isinstance(cell, str) else repr(cell)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text
