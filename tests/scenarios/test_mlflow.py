"""A user's story: a model that MLflow saved, in MLflow's image and in any other, with the packages it names."""

import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from sklearn.linear_model import LinearRegression

from clary.testing.server import RunningServer
from platform_models import archive, create, eventually, status, wait_for_status

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
IMAGES = {
    "mlflow": f"{REGISTRY}/mlflow-pyfunc:3.17.2",
    "other": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
}
# As MLflow writes it for a scikit-learn model.
MLMODEL = """
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.2
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: pickle
    sklearn_version: 1.9.1
mlflow_version: 3.17.2
model_uuid: 1c5cb1d6e6a54d2f8f5b0fcf5a37a9d8
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}, {"type": "double", "name": "b", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-01-01 00:00:00.000000'
"""
REQUIREMENTS = "mlflow-skinny==3.17.2\ncloudpickle\nscikit-learn==1.9.1\n"


def fitted() -> tuple[LinearRegression, dict[str, bytes]]:
    rows = np.random.default_rng(1).random((40, 2))
    model = LinearRegression().fit(rows, rows @ [2.0, -1.0] + 3)
    dumped = io.BytesIO()
    pickle.dump(model, dumped)
    files = {
        "MLmodel": MLMODEL.encode(),
        "model.pkl": dumped.getvalue(),
        "requirements.txt": REQUIREMENTS.encode(),
    }
    return model, files


def ask(server: RunningServer, name: str, body: Any, kind: str = "application/json") -> Any:
    runtime = server.client("sagemaker-runtime")
    sent = json.dumps(body) if kind == "application/json" else body
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType=kind, Body=sent)
    return json.loads(answer["Body"].read())


@pytest.mark.parametrize("image", IMAGES)
def test_H06_what_mlflow_wrote_is_served_in_its_image_and_in_any(server: RunningServer, image: str) -> None:
    model, files = fitted()
    name = f"mlflow-in-{image}"
    create(server, name, archive(files), Image=IMAGES[image])
    [image_told] = wait_for_status(server, name, "InService")["ProductionVariants"][0]["DeployedImages"]
    assert image_told["ResolvedImage"].startswith("clary/mlflow:")
    rows = [[0.25, 0.5], [1.0, 2.0]]
    expected = {"predictions": pytest.approx(model.predict(np.array(rows)).tolist(), rel=1e-9)}
    assert ask(server, name, {"dataframe_split": {"columns": ["a", "b"], "data": rows}}) == expected
    assert ask(server, name, {"inputs": {"a": [0.25, 1.0], "b": [0.5, 2.0]}}) == expected
    assert ask(server, name, "a,b\n0.25,0.5\n1.0,2.0\n", "text/csv") == expected
    with pytest.raises(ClientError) as raised:
        ask(server, name, {"dataframe_split": {"columns": ["a"], "data": [[1.0]]}})
    told: dict[str, Any] = {**raised.value.response}
    assert told["OriginalStatusCode"] == 400
    assert "Failed to enforce schema" in told["OriginalMessage"]


def test_H06_requirements_that_cannot_be_met_say_why_and_what_to_do(server: RunningServer) -> None:
    _, files = fitted()
    files |= {
        "requirements.txt": b"clary-no-such-package-at-all==1.0\n",
        "python_env.yaml": b"python: 3.8.16\ndependencies:\n- -r requirements.txt\n",
    }
    create(server, "mlflow-lacking", archive(files), Image=IMAGES["mlflow"])
    reason = eventually(
        lambda: status(server, "mlflow-lacking").get("FailureReason"), "the deployment to fail"
    )
    assert "clary-no-such-package-at-all" in reason
    assert "The model was logged with Python 3.8" in reason
