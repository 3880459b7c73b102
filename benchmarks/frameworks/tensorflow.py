"""A small perceptron, 20 → 64 → 64 → 1, JSON."""

import importlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "application/json"
SIZES: tuple[int, ...] = (20, 64, 64, 1)


def make(folder: Path, sizes: tuple[int, ...] = SIZES) -> None:
    tensorflow: Any = importlib.import_module("tensorflow")
    generator = np.random.default_rng(1)
    module = tensorflow.Module()
    module.weights = [
        tensorflow.Variable((generator.standard_normal(shape) / 10).astype(np.float32))
        for shape in itertools.pairwise(sizes)
    ]

    def forward(x: Any) -> dict[str, Any]:
        for weights in module.weights[:-1]:
            x = tensorflow.nn.relu(x @ weights)
        return {"y": x @ module.weights[-1]}

    signature = [tensorflow.TensorSpec([None, sizes[0]], tensorflow.float32, name="x")]
    module.forward = tensorflow.function(forward, input_signature=signature)
    tensorflow.saved_model.save(module, str(folder / "1"), signatures=module.forward)


def body(rows: int, number: int, sizes: tuple[int, ...] = SIZES) -> bytes:
    table = np.random.default_rng(number).random((rows, sizes[0])).round(4)
    return json.dumps({"instances": table.tolist()}).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    tensorflow: Any = importlib.import_module("tensorflow")
    loaded = tensorflow.saved_model.load(str(folder / "1"))
    signature = loaded.signatures["serving_default"]

    def predict(data: bytes) -> bytes:
        table = np.array(json.loads(data)["instances"], dtype=np.float32)
        found = signature(x=tensorflow.constant(table))["y"].numpy()
        return json.dumps({"predictions": found.tolist()}).encode()

    predict.model = loaded  # type: ignore[attr-defined]  # a signature does not keep its model alive
    return predict
