"""JSON values and tensors, by TensorFlow Serving's rules.

A tensor is a number or string, or lists of equal length all the way down. Whole numbers and decimals fit a float
tensor, as long as they keep their value; an integer tensor takes whole numbers within its range; binary is an object
with `b64` alone. What numpy can read at once it reads; anything else is walked, and either read or refused in
Serving's words.
"""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from clary.runtimes.frameworks.tensorflow.dtypes import DTYPES, STRING, TYPE_NAMES, Array
from clary.runtimes.frameworks.tensorflow.faults import InvalidArgument, Unimplemented

_KINDS: Final = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
_JSON_TYPES: Final = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}


def parse(body: bytes) -> Any:
    """The value of a JSON text, which may hold NaN and Infinity. Raises `InvalidArgument`."""
    if not body:
        raise InvalidArgument("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as strict:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise InvalidArgument(f"JSON Parse error: {strict.msg} at offset: {strict.pos}") from strict


def to_tensor(value: Any, dtype: int, *, plain: bool) -> Array:
    """The tensor of a JSON value; `plain` says that it holds no true and no false. Raises `ServingFault`."""
    if (plain or dtype == 10) and (array := _at_once(value, dtype)) is not None:
        return array
    shape = _shape_of(value)
    values: list[Any] = []
    _walk(value, shape, 0, dtype, values)
    flat = np.empty(len(values), dtype=object if dtype == STRING else DTYPES[dtype])
    flat[:] = values
    return flat.reshape(shape)


def is_binary(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def to_json(name: str, array: Array) -> Any:
    """What `dump` writes an output as; the output's name says whether its strings are bytes."""
    if array.dtype != object:
        return array
    write = _encode_binary if name.endswith("_bytes") else _decode_text
    texts = np.empty(array.shape, dtype=object)
    texts.ravel()[:] = [write(value) for value in array.ravel()] if array.size else []
    return texts.tolist()


def dump(document: Any, arrays: Sequence[Array] = ()) -> bytes:
    """The JSON text of a document with arrays in it, those that `arrays` lists.

    Each number has the digits of its type: 0.2 of a float tensor is 0.2.
    """
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays):
        try:
            text: bytes = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
            return text
        except orjson.JSONEncodeError:
            pass  # strings that are no UTF-8, which are passed on as they are
    return json.dumps(document, default=_with_own_digits, ensure_ascii=False).encode(
        "utf-8", "surrogateescape"
    )


def _at_once(value: Any, dtype: int) -> Array | None:
    """None for what numpy does not read, or reads in another way than Serving does."""
    wanted = DTYPES.get(dtype)
    if wanted is None:
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None  # lists of different lengths, or whole numbers beyond 64 bits
    if array.dtype.kind not in _KINDS[wanted.kind] or not array.size:
        return None
    if wanted.kind == "f":
        return _decimals(array, wanted)
    if wanted.kind != "b" and array.dtype != wanted:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            return None
    return array.astype(wanted, copy=False)


def _decimals(array: Array, wanted: np.dtype[Any]) -> Array | None:
    """None where a value might not fit, which depends on how it was written: see `_decimal`."""
    most = _largest_whole(wanted)
    # NaN is neither, so that it is walked too; and of numpy's largest integers the absolute value is none.
    if not (array.max() <= most and array.min() >= -most):
        return None
    return array.astype(wanted, copy=False)


def _largest_whole(wanted: np.dtype[Any]) -> int:
    return (1 << (np.finfo(wanted).nmant + 1)) - 1


def _shape_of(value: Any) -> list[int]:
    """By the first element of each list, as Serving takes it."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _walk(value: Any, shape: Sequence[int], level: int, dtype: int, values: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise InvalidArgument(
                f"JSON Value: {_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        values.append(_element(value, dtype))
        return
    if level >= rank:
        raise InvalidArgument(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise InvalidArgument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        _walk(each, shape, level + 1, dtype, values)


def _element(value: Any, dtype: int) -> Any:
    if dtype == STRING:
        return _string(value)
    wanted = DTYPES.get(dtype)
    if wanted is None:
        raise Unimplemented(
            f"Conversion of JSON Value: {_text(value)} to type: {TYPE_NAMES.get(dtype, dtype)}"
        )
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted.kind == "b" and isinstance(value, bool):
        return value
    if wanted.kind == "f" and is_number:
        return _decimal(value, wanted, dtype)
    if wanted.kind in "iu" and is_number and isinstance(value, int):
        limits = np.iinfo(wanted)
        if limits.min <= value <= limits.max:
            return value
    raise _unfit(value, dtype)


def _string(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise _unfit(value, STRING)
    if not is_binary(value):
        raise InvalidArgument(f"JSON Value: {_text(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument("Unable to base64 decode") from error


def _decimal(value: int | float, wanted: np.dtype[Any], dtype: int) -> float:
    fits = abs(value) <= _largest_whole(wanted) if isinstance(value, int) else True
    if isinstance(value, float) and math.isfinite(value):
        fits = abs(value) <= float(np.finfo(wanted).max)
    if not fits:
        raise InvalidArgument(
            f"Cannot convert JSON value: {_text(value)} to {TYPE_NAMES[dtype]} without loss of precision."
        )
    return float(value)


def _unfit(value: Any, dtype: int) -> InvalidArgument:
    kind = "Null" if value is None else str(value) if isinstance(value, bool) else _JSON_TYPES[type(value)]
    return InvalidArgument(
        f"JSON Value: {_text(value)} Type: {kind} is not of expected type: {TYPE_NAMES.get(dtype, dtype)}"
    )


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else f"{text[:500]}…"


def _decode_text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _encode_binary(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _with_own_digits(value: Any) -> Any:
    """Of arrays and numpy's numbers, for a text that holds NaN or Infinity."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or value.dtype.itemsize == 8:
            return value.tolist()
        digits = np.array([float(str(each)) for each in value.ravel()], dtype=np.float64)
        return digits.reshape(value.shape).tolist()
    return float(str(value)) if value.dtype.kind == "f" else value.item()
