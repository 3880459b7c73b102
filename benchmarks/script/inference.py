"""A user's script that nobody can batch: a small forest walked in plain Python, one request at a time.

The answer is the mean over the row and copies of it that are moved a little; `model.json` says how many (`moves`), and
so how long an answer takes. A tree is [feature, threshold, left, right], or a leaf's value.
"""

import json
from pathlib import Path
from typing import Any


def model_fn(model_dir: str) -> Any:
    return json.loads(Path(model_dir, "model.json").read_text())


def input_fn(data: str, content_type: str) -> list[float]:
    if content_type != "text/csv":
        raise ValueError(f"{content_type} is not text/csv")
    return [float(value) for value in data.split(",")]


def predict_fn(row: list[float], model: Any) -> float:
    total = 0.0
    for move in model["moves"]:
        moved = [value + move for value in row]
        for tree in model["trees"]:
            total += _walk(tree, moved)
    return total / len(model["moves"])


def output_fn(prediction: float, accept: str) -> tuple[str, str]:
    return json.dumps({"prediction": prediction}), "application/json"


def _walk(node: Any, row: list[float]) -> float:
    while isinstance(node, list):
        feature, threshold, left, right = node
        node = left if row[feature] < threshold else right
    value: float = node
    return value
