"""A Python function with a signature of 8 columns, dataframe_split."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTENT_TYPE = "application/json"
COLUMNS = [f"x{number}" for number in range(8)]
LOADER = """
import numpy as np

class Linear:
    def predict(self, frame):
        return frame.to_numpy() @ np.arange(8.0)

def _load_pyfunc(path):
    return Linear()
"""


def make(folder: Path) -> None:
    inputs = json.dumps([{"type": "double", "name": name, "required": True} for name in COLUMNS])
    (folder / "code").mkdir()
    (folder / "code" / "linear_loader.py").write_text(LOADER)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    code: code\n    loader_module: linear_loader\n"
        f"mlflow_version: 3.17.2\nsignature:\n  inputs: '{inputs}'\n"
    )


def body(rows: int, number: int) -> bytes:
    data = np.random.default_rng(number).random((rows, 8)).round(4).tolist()
    return json.dumps({"dataframe_split": {"columns": COLUMNS, "data": data}}).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    pandas: Any = importlib.import_module("pandas")
    model = importlib.import_module("mlflow.pyfunc").load_model(str(folder))

    def predict(data: bytes) -> bytes:
        given = json.loads(data)["dataframe_split"]
        frame = pandas.DataFrame(given["data"], columns=given["columns"])
        return json.dumps({"predictions": model.predict(frame).tolist()}).encode()

    return predict
