"""Run by the Python of the MLflow environment: MLflow saves models, and its own scoring server says what to expect.

python mlflow_checks.py FOLDER     writes the models there, and prints JSON: what was asked, their answer, ours
"""

import json
import sys
from pathlib import Path
from typing import Any

from clary.runtimes.contract import InvocationHead, InvocationRequest
from clary.runtimes.frameworks.mlflow.scoring import Scorer

import mlflow.pyfunc  # isort: skip
import numpy
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

JSON, CSV = "application/json", "text/csv"
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("double", "x"), ColSpec("long", "n", required=False)]),
    outputs=Schema([ColSpec("double")]),
    params=ParamSchema([ParamSpec("scale", "double", 1.0)]),
)
FRAMES: list[Any] = [
    {"dataframe_split": {"columns": ["x", "n"], "data": [[1.5, 2], [3, 4]]}},
    {"dataframe_split": {"columns": ["x"], "data": [[1.5]]}, "params": {"scale": 3.0}},
    {"dataframe_records": [{"x": 1, "n": 2}, {"x": 2, "n": 3}]},
    {"instances": [{"x": 1.0, "n": 2}]},
    {"inputs": {"x": [1.0, 2.0], "n": [3, 4]}},
    {"dataframe_split": {"columns": ["y"], "data": [[1]]}},
    {"dataframe_split": {"columns": ["x"], "data": [["words"]]}},
    {"dataframe_split": {"columns": ["x"], "data": [[13.0]]}},
    {"dataframe_records": {"x": 1}},
    {"inputs": {"x": [1.0]}, "instances": [[1]]},
    {"nothing": 1},
    [[1, 2]],
]
TENSORS: list[Any] = [
    {"inputs": [[1, 2], [3, 4]]},
    {"instances": [[1.5, 2.5]]},
    {"messages": [{"role": "user"}]},
]


class Rows(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        if (model_input["x"] == 13).any():
            raise ZeroDivisionError("thirteen")
        return model_input["x"] * (params or {}).get("scale", 1.0) + model_input.get("n", 0)


class Plain(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        if isinstance(model_input, dict):
            return {"seen": sorted(model_input)}
        return numpy.asarray(model_input).sum(axis=1)


def main(folder: Path) -> list[dict[str, Any]]:
    wanted = ["mlflow-skinny", "inflection==0.5.1"]
    for name, model, signature in (("rows", Rows(), SIGNATURE), ("plain", Plain(), None)):
        mlflow.pyfunc.save_model(
            str(folder / name), python_model=model, signature=signature, pip_requirements=wanted
        )
    told = []
    for name, bodies in (("rows", FRAMES), ("plain", TENSORS)):
        model = mlflow.pyfunc.load_model(str(folder / name))
        asked = [(json.dumps(body), JSON) for body in bodies] + [
            ("x,n\n1.5,2\n3,4\n", CSV),
            ("{", JSON),
            ("x\n1\n", f"{CSV}; charset=latin-1"),
            ("x", "application/x-npy"),
        ]
        for body, kind in asked:
            told.append(
                {
                    "asked": [name, kind, body],
                    "theirs": _theirs(model, body, kind),
                    "ours": _ours(model, body, kind),
                }
            )
    return told


def _theirs(model: Any, body: str, kind: str) -> list[Any]:
    try:
        answer = scoring_server.invocations(body.encode(), kind, model, model.metadata.get_input_schema())
    except MlflowException as error:
        return [error.get_http_status_code(), json.loads(error.serialize_as_json())]
    return [answer.status, json.loads(answer.response) if answer.status == 200 else None]


def _ours(model: Any, body: str, kind: str) -> list[Any]:
    answer = Scorer(model).answer(InvocationRequest(InvocationHead(kind, None, "", ()), body.encode()))
    return [answer.status, None if answer.status == 415 else json.loads(answer.body)]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
