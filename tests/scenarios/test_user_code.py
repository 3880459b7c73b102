"""A user's story: the script that answers, with scikit-learn, with XGBoost, and with a package of its own."""

import io
import json
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
from botocore.exceptions import ClientError
from sklearn.linear_model import Ridge

from clary.testing.server import RunningServer
from platform_models import (
    SKLEARN,
    archive,
    create,
    csv,
    eventually,
    numbers,
    predictions,
    regressor,
    rows,
    status,
    upload,
    wait_for_status,
)

MODEL_FN = """
import os, joblib
def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""


def ridge() -> tuple[Ridge, bytes]:
    features = rows(100).astype("float64")
    model = Ridge().fit(features, features @ np.arange(7))
    dumped = io.BytesIO()
    joblib.dump(model, dumped)
    return model, dumped.getvalue()


def ask(server: RunningServer, name: str, body: Any, kind: str, accept: str) -> bytes:
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=body, ContentType=kind, Accept=accept
    )
    content: bytes = answer["Body"].read()
    return content


def test_H06_scikit_learn_with_a_script_answers_csv_json_and_npy(server: RunningServer) -> None:
    model, dumped = ridge()
    files = {"model.joblib": dumped, "code/inference.py": MODEL_FN.encode()}
    create(server, "ridge", archive(files), Image=SKLEARN)
    found = wait_for_status(server, "ridge", "InService")
    deployed = found["ProductionVariants"][0]["DeployedImages"][0]["ResolvedImage"]
    assert "sklearn" in deployed
    features = rows(5).astype("float64")
    expected = pytest.approx(model.predict(features).tolist(), rel=1e-5)
    buffer = io.BytesIO()
    np.save(buffer, features)
    assert (
        json.loads(ask(server, "ridge", json.dumps(features.tolist()), "application/json", "*/*")) == expected
    )
    assert numbers(ask(server, "ridge", csv(features), "text/csv", "text/csv")) == expected
    answered = ask(server, "ridge", buffer.getvalue(), "application/x-npy", "application/x-npy")
    assert np.load(io.BytesIO(answered)).tolist() == expected


def test_H03_H06_a_source_directory_of_its_own_is_fetched(server: RunningServer) -> None:
    model, dumped = ridge()
    script = (
        MODEL_FN + "def output_fn(prediction, accept): return f'first {prediction[0]:.6f}', 'text/plain'\n"
    )
    source = upload(server, "source/sourcedir.tar.gz", archive({"serve.py": script.encode()}))
    environment = {"SAGEMAKER_PROGRAM": "serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": source}
    create(server, "sourced", archive({"model.joblib": dumped}), Image=SKLEARN, Environment=environment)
    wait_for_status(server, "sourced", "InService")
    features = rows(3).astype("float64")
    answer = ask(server, "sourced", json.dumps(features.tolist()), "application/json", "*/*")
    assert answer.decode() == f"first {model.predict(features.astype('float32'))[0]:.6f}"


def test_H06_xgboost_with_handlers_of_its_own_and_a_package_more(server: RunningServer) -> None:
    booster, features = regressor(), rows(4)
    script = """
import json, os, inflection, xgboost
def model_fn(model_dir):
    return xgboost.Booster(model_file=os.path.join(model_dir, "model.ubj"))
def output_fn(prediction, accept):
    return json.dumps({inflection.underscore("TheAnswer"): prediction.tolist()})
"""
    files = {
        "model.ubj": bytes(booster.save_raw("ubj")),
        "code/inference.py": script.encode(),
        "code/requirements.txt": b"inflection==0.5.1  # a small one\n",
    }
    create(server, "custom", archive(files))
    wait_for_status(server, "custom", "InService")
    answer = json.loads(ask(server, "custom", csv(features), "text/csv", "application/json"))
    assert answer["the_answer"] == pytest.approx(predictions(booster, features), rel=1e-6)


def test_H06_a_package_that_does_not_exist_fails_the_endpoint_in_uv_s_words(server: RunningServer) -> None:
    files = {
        "model.ubj": bytes(regressor().save_raw("ubj")),
        "code/inference.py": b"def model_fn(model_dir): return 1\n",
        "code/requirements.txt": b"clary-no-such-package-at-all==1.0\n",
    }
    create(server, "lacking", archive(files))
    reason = eventually(lambda: status(server, "lacking").get("FailureReason"), "the deployment to fail")
    assert "requirements.txt could not be installed" in reason
    assert "clary-no-such-package-at-all" in reason


def test_H06_a_script_that_raises_gives_a_model_error_with_its_words(server: RunningServer) -> None:
    script = b"def model_fn(model_dir): return 1\ndef input_fn(data, kind): raise ValueError('not my kind')\n"
    create(server, "raising", archive({"code/inference.py": script}), Image=SKLEARN)
    wait_for_status(server, "raising", "InService")
    with pytest.raises(ClientError) as raised:
        ask(server, "raising", b"1", "text/csv", "*/*")
    error: dict[str, Any] = {**raised.value.response}
    assert error["Error"]["Code"] == "ModelError"
    assert "not my kind" in error["OriginalMessage"]
