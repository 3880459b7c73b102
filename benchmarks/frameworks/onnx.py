"""A perceptron, 8 → 64 → 64 → 1, JSON."""

import importlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "application/json"
SIZES = (8, 64, 64, 1)


def make(folder: Path) -> None:
    write_perceptron(folder / "model.onnx", SIZES)


def body(rows: int, number: int) -> bytes:
    return json.dumps(np.random.default_rng(number).random((rows, SIZES[0])).round(4).tolist()).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def predict(data: bytes) -> bytes:
        given = np.array(json.loads(data), dtype=np.float32)
        return json.dumps(session.run(None, {"x": given})[0].tolist()).encode()

    return predict


def write_perceptron(path: Path, sizes: tuple[int, ...]) -> None:
    """Matrices with ReLU between them, as ONNX. The environment has no writer for it, and this much needs none."""
    random = np.random.default_rng(1)
    nodes, weights, last = [], [], "x"
    for number, shape in enumerate(itertools.pairwise(sizes)):
        is_last = number == len(sizes) - 2
        weight = (random.standard_normal(shape) / np.sqrt(shape[0])).astype("<f4")
        weights.append(
            _field(
                5, _numbers(1, shape) + b"\x10\x01" + _field(8, b"w%d" % number) + _field(9, weight.tobytes())
            )
        )
        after = "y" if is_last else f"h{number}"
        nodes.append(_node("MatMul", (last, f"w{number}"), after))
        if not is_last:
            nodes.append(_node("Relu", (after,), f"r{number}"))
        last = f"r{number}"
    graph = b"".join(
        (*nodes, _field(2, b"perceptron"), *weights, _value(11, "x", sizes[0]), _value(12, "y", sizes[-1]))
    )
    path.write_bytes(b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x0d"))  # IR version 8, operators 13


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    given = b"".join(_field(1, name.encode()) for name in inputs)
    return _field(1, given + _field(2, output.encode()) + _field(4, operator.encode()))


def _value(number: int, name: str, width: int) -> bytes:
    shape = _field(1, _field(2, b"rows")) + _field(1, _numbers(1, (width,)))
    return _field(number, _field(1, name.encode()) + _field(2, _field(1, b"\x08\x01" + _field(2, shape))))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _numbers(number: int, values: tuple[int, ...]) -> bytes:
    return b"".join(_varint(number << 3) + _varint(value) for value in values)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
