"""Bodies become rows of numbers: CSV, libsvm and JSON Lines as the XGBoost runtime reads them, JSON and npy besides.

Rows are 64-bit here, as LightGBM's thresholds are: a value that was trained with must fall on the same side of them.
"""

import io
import json
from array import array
from typing import Any

import numpy as np

from clary.runtimes.contract import BadRequest, UnsupportedMediaType
from clary.runtimes.frameworks.xgboost import payloads as rows
from clary.runtimes.frameworks.xgboost.payloads import Reader

_NAMES = ("features", "data", "values")
_ACCEPTED = (
    "text/csv",
    "text/libsvm",
    "text/x-libsvm",
    "application/json",
    "application/jsonlines",
    "application/x-npy",
)


def reader_for(content_type: str | None) -> Reader:
    """CSV when there is no Content-Type. Raises `UnsupportedMediaType`."""
    kind = (content_type or "text/csv").partition(";")[0].strip().lower()
    if kind == "application/json":
        return read_json
    if kind == "application/x-npy":
        return read_npy
    if kind in _ACCEPTED:
        return rows.reader_for(kind)
    raise UnsupportedMediaType(f"{content_type} is not an accepted ContentType: {', '.join(_ACCEPTED)}.")


def read_json(body: bytes, features: int, values: "array[float]") -> None:
    """A row, a list of rows, or an object with them as `instances`, `inputs`, `data` or `features`; null is missing."""
    try:
        _append(_listed(json.loads(body)), features, values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _unreadable("json", error) from error


def read_npy(body: bytes, features: int, values: "array[float]") -> None:
    try:
        _append(np.load(io.BytesIO(body), allow_pickle=False), features, values)
    except (ValueError, TypeError, OSError, EOFError, MemoryError) as error:  # it says itself how large it is
        raise _unreadable("npy", error) from error


def _listed(value: Any) -> Any:
    """The rows in whatever objects stand around them."""
    while isinstance(value, dict):
        names = [name for name in ("instances", "inputs", *_NAMES) if name in value]
        if not names:
            raise ValueError("the object has neither instances nor features")
        value = value[names[0]]
    if isinstance(value, list):
        return [_listed(each) if isinstance(each, dict) else each for each in value]
    raise ValueError("there is no list of rows in it")


def _append(value: Any, features: int, values: "array[float]") -> None:
    found = np.asarray(value, dtype=np.float64)
    table = found.reshape(1, -1) if found.ndim == 1 else found
    if table.ndim != 2 or not table.size:
        raise ValueError(f"rows were expected, and this has the shape {list(found.shape)}")
    if table.shape[1] != features:
        raise BadRequest(
            f"Unable to evaluate payload provided: Feature size of inference data {table.shape[1]} is not consistent "
            f"with feature size of trained model {features}."
        )
    values.frombytes(np.ascontiguousarray(table).tobytes())


def _unreadable(kind: str, error: Exception) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Loading {kind} data failed with Exception, please ensure data is in {kind} format:\n"
        f" {type(error)}\n {error}"
    )
