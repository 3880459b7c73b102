"""100 trees of depth 6 over 8 features, CSV."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "text/csv"


def make(folder: Path) -> None:
    xgboost: Any = importlib.import_module("xgboost")
    random = np.random.default_rng(1)
    rows = random.random((5000, 8), dtype=np.float32)
    values = 3 + 10 * rows[:, 0] + 5 * rows[:, 3] ** 2 - 4 * rows[:, 6]
    xgboost.train({"max_depth": 6, "nthread": 1}, xgboost.DMatrix(rows, values), 100).save_model(
        folder / "model.ubj"
    )


def body(rows: int, number: int) -> bytes:
    table = np.random.default_rng(number).random((rows, 8)).round(4)
    return "\n".join(",".join(map(str, row)) for row in table.tolist()).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    xgboost: Any = importlib.import_module("xgboost")
    booster = xgboost.Booster({"nthread": 1}, model_file=folder / "model.ubj")
    booster.set_param({"nthread": 1})

    def predict(data: bytes) -> bytes:
        table = np.array([line.split(b",") for line in data.splitlines()], dtype=np.float32)
        return b"".join(b"%a\n" % score for score in booster.inplace_predict(table).tolist())

    return predict
