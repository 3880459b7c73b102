"""The inference toolkit's decoders and encoders: what handlers fall back to when a script has none of its own.

numpy is imported when it is first needed: a script that reads and writes everything itself does without it.
"""

import importlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

JSON, CSV, NPY, NPZ = "application/json", "text/csv", "application/x-npy", "application/x-npz"
TEXT = frozenset({JSON, CSV})
"""Types whose bodies handlers get as `str`."""


class UnsupportedFormat(Exception):
    """A content type that the defaults neither read nor write."""

    def __init__(self, content_type: str) -> None:
        super().__init__(
            f"Content type {content_type} is not supported by this framework. Please implement input_fn to "
            "deserialize the request data or an output_fn to serialize the response."
        )


def plain(content_type: str) -> str:
    """Without parameters: `text/csv; charset=utf-8` is `text/csv`."""
    return content_type.partition(";")[0].strip().lower()


def is_written(kind: str) -> bool:
    """Whether `encode` knows the type, which has no parameters."""
    return kind in _ENCODERS


def decode(data: str | bytes, content_type: str) -> Any:
    """An array of the body, or for npz a sparse matrix. Raises `UnsupportedFormat`, and what numpy raises."""
    read = _DECODERS.get(plain(content_type))
    if read is None:
        raise UnsupportedFormat(content_type)
    return read(data)


def encode(values: Any, content_type: str) -> str | bytes:
    """The body for what a model predicted. Raises `UnsupportedFormat`, and what numpy raises."""
    write = _ENCODERS.get(plain(content_type))
    if write is None:
        raise UnsupportedFormat(content_type)
    return write(values)


def to_json(values: Any) -> str:
    return _JSON(values)


def _from_json(data: str | bytes) -> Any:
    return _numpy().array(json.loads(data))


def _from_csv(data: str | bytes) -> Any:
    text = data if isinstance(data, str) else data.decode()
    return _numpy().genfromtxt(io.StringIO(text), delimiter=",")


def _from_npy(data: str | bytes) -> Any:
    return _numpy().load(io.BytesIO(_as_bytes(data)), allow_pickle=False)


def _from_npz(data: str | bytes) -> Any:
    return importlib.import_module("scipy.sparse").load_npz(io.BytesIO(_as_bytes(data)))


def _to_csv(values: Any) -> str:
    stream = io.StringIO()
    _numpy().savetxt(stream, values, delimiter=",", fmt="%s")
    return stream.getvalue()


def _to_npy(values: Any) -> bytes:
    stream = io.BytesIO()
    _numpy().save(stream, _numpy().asarray(values), allow_pickle=False)
    return stream.getvalue()


def _jsonable(value: Any) -> Any:
    """Arrays, and numpy's numbers, as what JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_JSON: Callable[[Any], str] = json.JSONEncoder(default=_jsonable).encode


def _as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _numpy() -> Any:
    return importlib.import_module("numpy")


_DECODERS: Mapping[str, Callable[[str | bytes], Any]] = {
    JSON: _from_json,
    CSV: _from_csv,
    NPY: _from_npy,
    NPZ: _from_npz,
}
_ENCODERS: Mapping[str, Callable[[Any], str | bytes]] = {JSON: to_json, CSV: _to_csv, NPY: _to_npy}
