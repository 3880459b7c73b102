"""What a predict request asks: tensors by rows (`instances`) or by columns (`inputs`), and the answer in the same form.

Columns are the tensors as they are. Rows are one example each; a row is a plain value where the signature has a
single tensor, and an object with all the names otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clary.runtimes.frameworks.tensorflow.dtypes import Array
from clary.runtimes.frameworks.tensorflow.faults import InvalidArgument, ServingFault
from clary.runtimes.frameworks.tensorflow.protobufs import SignatureDef, TensorInfo
from clary.runtimes.frameworks.tensorflow.tensors import dump, is_binary, parse, to_json, to_tensor

DEFAULT_SIGNATURE = "serving_default"


class Document(NamedTuple):
    """A request's JSON object. `plain`: no true and no false is in it."""

    members: Mapping[str, Any]
    signature: str
    plain: bool


class Feeds(NamedTuple):
    tensors: Mapping[str, Array]
    by_rows: bool


def read_document(body: bytes) -> Document:
    """Raises `InvalidArgument`."""
    members = parse(body)
    if not isinstance(members, dict):
        raise InvalidArgument("JSON Value: the body Is not object")
    name = members.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidArgument(
            "JSON Value: not formatted correctly. 'signature_name' key must be a string value."
        )
    return Document(members, name or DEFAULT_SIGNATURE, b"true" not in body and b"false" not in body)


def read_feeds(document: Document, signature: SignatureDef) -> Feeds:
    """Raises `ServingFault`."""
    members, inputs = document.members, signature.inputs
    if not inputs:
        raise InvalidArgument(f"Failed to get input map for signature: {document.signature}")
    if "instances" in members and "inputs" in members:
        raise InvalidArgument(
            "JSON Value: Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    if "instances" in members:
        return Feeds(_from_rows(members["instances"], inputs, document.plain), by_rows=True)
    if "inputs" in members:
        return Feeds(_from_columns(members["inputs"], inputs, document.plain), by_rows=False)
    raise InvalidArgument("Missing 'inputs' or 'instances' key")


def write_answer(outputs: Mapping[str, Array], *, by_rows: bool) -> bytes:
    """Raises `InvalidArgument`."""
    if by_rows:
        return _rows_of(outputs)
    values = {name: to_json(name, array) for name, array in outputs.items()}
    only = next(iter(values.values()))
    return dump({"outputs": values if len(values) > 1 else only}, list(outputs.values()))


def _from_rows(instances: Any, inputs: Mapping[str, TensorInfo], plain: bool) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise InvalidArgument("JSON Value: Excepting 'instances' to be an list/array")
    if not instances:
        raise InvalidArgument("JSON Value: No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise InvalidArgument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not _is_named(instances[0]):
        for number, each in enumerate(instances):
            if _is_named(each):
                raise InvalidArgument(f"Expecting value/list but got object at item {number} of input list")
        name, info = next(iter(inputs.items()))
        return {name: _stack(instances, info.dtype, plain, "")}
    for number, each in enumerate(instances):
        _check_names(each, number, inputs)
    return {
        name: _stack([each[name] for each in instances], info.dtype, plain, f" key: {name}")
        for name, info in inputs.items()
    }


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_binary(value)


def _check_names(row: Any, number: int, inputs: Mapping[str, TensorInfo]) -> None:
    if not _is_named(row):
        raise InvalidArgument(f"Expecting object but got list at item {number} of input list")
    for name in row:
        if name not in inputs:
            raise InvalidArgument(
                f"Failed to process element: {number} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON object: does not have named input: {name}"
            )
    if len(row) != len(inputs):
        raise InvalidArgument(
            f"Failed to process element: {number} of 'instances' list. JSON object: keys must be equal to: "
            f"{','.join(inputs)}"
        )


def _stack(rows: Sequence[Any], dtype: int, plain: bool, where: str) -> Array:
    """One tensor of all rows, which have one shape."""
    try:
        return to_tensor(rows, dtype, plain=plain)
    except ServingFault:
        return _stack_singly(rows, dtype, plain, where)


def _stack_singly(rows: Sequence[Any], dtype: int, plain: bool, where: str) -> Array:
    """As `_stack`, to tell which row does not fit."""
    tensors: list[Array] = []
    for number, row in enumerate(rows):
        try:
            tensor = to_tensor(row, dtype, plain=plain)
            if tensors:
                _check_shape(tensor.shape, tensors[0].shape)
            tensors.append(tensor)
        except ServingFault as fault:
            words = f"Failed to process element: {number}{where} of 'instances' list. Error: INVALID_ARGUMENT: {fault}"
            raise InvalidArgument(words) from fault
    return np.stack(tensors)


def _check_shape(shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    if int(np.prod(shape)) != int(np.prod(first)):
        raise InvalidArgument(f"Expecting tensor size: {int(np.prod(first))} but got: {int(np.prod(shape))}")
    if shape != first:
        raise InvalidArgument(f"Expecting shape {_shape_text(first)} but got: {_shape_text(shape)}")


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _from_columns(values: Any, inputs: Mapping[str, TensorInfo], plain: bool) -> dict[str, Array]:
    if not _is_named(values):
        if len(inputs) > 1:
            raise InvalidArgument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        name, info = next(iter(inputs.items()))
        return {name: to_tensor(values, info.dtype, plain=plain)}
    for name in inputs:
        if name not in values:
            raise InvalidArgument(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_tensor(values[name], info.dtype, plain=plain) for name, info in inputs.items()}


def _rows_of(outputs: Mapping[str, Array]) -> bytes:
    count = -1
    for name, array in outputs.items():
        if not array.shape:
            raise InvalidArgument(f"Tensor name: {name} has no shape information ")
        if count not in (-1, array.shape[0]):
            raise InvalidArgument(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {count}"
            )
        count = array.shape[0]
    values = {name: to_json(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        rows = next(iter(values.values()))
    else:
        rows = [{name: value[number] for name, value in values.items()} for number in range(count)]
    return dump({"predictions": rows}, list(outputs.values()))
