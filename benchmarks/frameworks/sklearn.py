"""A script: standardised logistic regression over 8 features, JSON."""

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "application/json"
SCRIPT = """
import os, pickle
def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.pkl"), "rb") as file:
        return pickle.load(file)
def predict_fn(data, model):
    return model.predict_proba(data)
"""


def make(folder: Path) -> None:
    pipeline: Any = importlib.import_module("sklearn.pipeline")
    linear: Any = importlib.import_module("sklearn.linear_model")
    preprocessing: Any = importlib.import_module("sklearn.preprocessing")
    rows = np.random.default_rng(1).random((1000, 8))
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear.LogisticRegression())
    (folder / "model.pkl").write_bytes(pickle.dumps(model.fit(rows, rows[:, 0] > rows[:, 1])))
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(SCRIPT)


def body(rows: int, number: int) -> bytes:
    return json.dumps(np.random.default_rng(number).random((rows, 8)).round(4).tolist()).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    model = pickle.loads((folder / "model.pkl").read_bytes())  # noqa: S301  (made above)

    def predict(data: bytes) -> bytes:
        given = np.array(json.loads(data)).astype("float32")
        return json.dumps(model.predict_proba(given).tolist()).encode()

    return predict
