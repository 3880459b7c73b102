"""100 trees of 31 leaves over 8 features, CSV."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "text/csv"


def make(folder: Path) -> None:
    lightgbm: Any = importlib.import_module("lightgbm")
    rows = np.random.default_rng(1).random((5000, 8))
    values = 3 + 10 * rows[:, 0] + 5 * rows[:, 3] ** 2 - 4 * rows[:, 6]
    told = {"objective": "regression", "num_threads": 1, "verbose": -1}
    lightgbm.train(told, lightgbm.Dataset(rows, values), 100).save_model(folder / "model.txt")


def body(rows: int, number: int) -> bytes:
    table = np.random.default_rng(number).random((rows, 8)).round(4)
    return "\n".join(",".join(map(str, row)) for row in table.tolist()).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    lightgbm: Any = importlib.import_module("lightgbm")
    booster = lightgbm.Booster(model_file=folder / "model.txt")

    def predict(data: bytes) -> bytes:
        table = np.array([line.split(b",") for line in data.splitlines()], dtype=np.float64)
        return b"".join(b"%a\n" % score for score in booster.predict(table, num_threads=1).tolist())

    return predict
