"""Classify and regress: examples in JSON become serialized `tf.train.Example`s, scores come back.

A signature for these has one input, named `inputs`, that takes serialized examples. A feature is a value or a list of
values of one kind: text or `b64` is bytes, a number with a decimal point is a float, any other an int64. Features of
`context` belong to every example.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from clary.runtimes.frameworks.tensorflow import protobufs
from clary.runtimes.frameworks.tensorflow.dtypes import DTYPES, STRING, Array
from clary.runtimes.frameworks.tensorflow.faults import InvalidArgument
from clary.runtimes.frameworks.tensorflow.predictions import Document
from clary.runtimes.frameworks.tensorflow.protobufs import Feature, SignatureDef
from clary.runtimes.frameworks.tensorflow.tensors import dump, is_binary, to_tensor

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
INPUTS: Final = "inputs"
_CLASSES, _SCORES, _VALUES = "classes", "scores", "outputs"
_NOUNS = {CLASSIFY: "classification", REGRESS: "regression"}
_FLOAT, _LARGEST_INT64 = 1, (1 << 63) - 1


def check_method(signature: SignatureDef, method: str) -> None:
    """Raises `InvalidArgument` for a signature that is for something else."""
    noun = _NOUNS[method]
    if signature.method != method:
        raise InvalidArgument(
            f"Expected {noun} signature method_name to be {method}. Was: {signature.method}"
        )
    if len(signature.inputs) != 1 or INPUTS not in signature.inputs:
        raise InvalidArgument(f"No {noun} inputs found in SignatureDef: expected one input Tensor, {INPUTS}")
    wanted = {_CLASSES, _SCORES} if method == CLASSIFY else {_VALUES}
    if not set(signature.outputs) <= wanted or not signature.outputs:
        raise InvalidArgument(
            f"Expected {noun} signature outputs to be {' or '.join(sorted(wanted))}; they are "
            f"{', '.join(signature.outputs)}"
        )


def read_examples(document: Document) -> Array:
    """A tensor of serialized examples. Raises `InvalidArgument`."""
    context = protobufs.example(_features(document.members.get("context", {})))
    examples = document.members.get("examples")
    if examples is None:
        raise InvalidArgument(
            "JSON Value: When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise InvalidArgument("JSON Value: Expecting 'examples' value to be an list/array")
    if not examples:
        raise InvalidArgument("JSON Value: 'examples' value is an empty array")
    serialized = np.empty(len(examples), dtype=object)
    serialized[:] = [context + protobufs.example(_features(each)) for each in examples]
    return serialized


def write_classes(outputs: Mapping[str, Array], count: int) -> bytes:
    """For each example its classes, each with label and score. Raises `InvalidArgument`."""
    for name, array in outputs.items():
        _check(array, name, count, np.dtype(object) if name == _CLASSES else DTYPES[_FLOAT])
    shapes = {array.shape for array in outputs.values()}
    if len(shapes) > 1:
        raise InvalidArgument(f"Tensors class and score should match in dim_size(1). Got {shapes}")
    shape = shapes.pop()
    scores = outputs.get(_SCORES, np.zeros(shape, dtype=np.float32))
    labels = [[""] * shape[1]] * count
    if (classes := outputs.get(_CLASSES)) is not None:
        labels = [[label.decode("utf-8", "surrogateescape") for label in row] for row in classes]
    rows = [
        [[label, score] for label, score in zip(*pair, strict=True)]
        for pair in zip(labels, scores, strict=True)
    ]
    return dump({"results": rows}, [scores])


def write_values(outputs: Mapping[str, Array], count: int) -> bytes:
    """For each example its value. Raises `InvalidArgument`."""
    values = outputs[_VALUES]
    if values.ndim != 1 and not (values.ndim == 2 and values.shape[1] == 1):
        raise InvalidArgument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    if values.shape[0] != count:
        raise InvalidArgument(
            f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}"
        )
    if values.dtype != DTYPES[_FLOAT]:
        raise InvalidArgument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    return dump({"results": values.reshape(count)}, [values])


def _check(array: Array, name: str, count: int, dtype: "np.dtype[Any]") -> None:
    if array.ndim != 2:
        raise InvalidArgument(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
    if array.dtype != dtype:
        wanted = "DT_STRING" if name == _CLASSES else "DT_FLOAT"
        raise InvalidArgument(f"Expected {name} Tensor of {wanted}. Got: {array.dtype}")
    if array.shape[0] != count:
        raise InvalidArgument(f"Expected {name} output batch size of {count}. Got: {array.shape[0]}")


def _features(example: Any) -> dict[str, Feature]:
    if not isinstance(example, dict):
        raise InvalidArgument("Example must be JSON object")
    return {name: _feature(name, value) for name, value in example.items()}


def _feature(name: str, content: Any) -> Feature:
    values = content if isinstance(content, list) else [content]
    kinds = {_kind(name, value) for value in values}
    if len(kinds) > 1:
        raise InvalidArgument(f"Unexpected element type in feature: {name}: its values are of several kinds")
    kind = kinds.pop() if kinds else "int64"
    if kind == "bytes":
        return [bytes(each) for each in to_tensor(values, STRING, plain=True)]
    if kind == "float":
        return [float(each) for each in to_tensor(values, _FLOAT, plain=True)]
    return [int(value) for value in values]


def _kind(name: str, value: Any) -> str:
    if isinstance(value, str) or is_binary(value):
        return "bytes"
    if isinstance(value, float):
        return "float"
    if isinstance(value, int):
        if value > _LARGEST_INT64:
            raise InvalidArgument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64"
    raise InvalidArgument(f"Feature: {name} has element with unexpected JSON type")
