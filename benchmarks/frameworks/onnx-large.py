"""A larger perceptron, 64 → 1024 → 1024 → 10, JSON."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


small = _beside("onnx")
CONTENT_TYPE = small.CONTENT_TYPE
SIZES = (64, 1024, 1024, 10)
predictor = small.predictor


def make(folder: Path) -> None:
    small.write_perceptron(folder / "model.onnx", SIZES)


def body(rows: int, number: int) -> bytes:
    return json.dumps(np.random.default_rng(number).random((rows, SIZES[0])).round(4).tolist()).encode()
