"""A user's story: transformers models answered by a pipeline, by an older one, and with a script's handlers."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.catalog import Catalog
from clary.testing.server import RunningServer
from framework_environments import python_of
from platform_models import archive, create, wait_for_status

KEPT = Path(__file__).parents[1] / "golden" / "huggingface"
EXPECTED: dict[str, Any] = json.loads((KEPT / "expected.json").read_text())
IMAGE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:"
    "2.6.0-transformers4.49.0-cpu-py312-ubuntu22.04"
)
SCRIPT = b"""
def predict_fn(data, model):
    if data["inputs"] == "nothing":
        raise ValueError("nothing to say")
    [found] = model([data["inputs"]])
    return {"verdict": found["label"].lower(), "sure": found["score"]}
"""


def files(name: str, folder: str = "") -> dict[str, bytes]:
    return {folder + path.name: path.read_bytes() for path in (KEPT / name).iterdir()}


def deployed(server: RunningServer, name: str, content: dict[str, bytes], **container: Any) -> str:
    """Which runtime serves it."""
    create(server, name, archive(content), Image=IMAGE, **container)
    found = wait_for_status(server, name, "InService")
    [told] = found["ProductionVariants"][0]["DeployedImages"]
    return str(told["ResolvedImage"])


def ask(server: RunningServer, name: str, body: Any, kind: str = "application/json") -> Any:
    runtime = server.client("sagemaker-runtime")
    sent = json.dumps(body) if kind == "application/json" else body
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType=kind, Body=sent)
    return json.loads(answer["Body"].read())


def near(kept: Any) -> Any:
    return [{**each, "score": pytest.approx(each["score"], rel=1e-4)} for each in kept]


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    """Built before an endpoint waits for it."""
    python_of("huggingface")


def test_H06_a_model_s_architecture_says_which_pipeline_answers(server: RunningServer) -> None:
    assert deployed(server, "sentiment", files("sentiment")).startswith("clary/huggingface:5.")
    texts, expected = ["this is a very good film", "i hate paris"], near(EXPECTED["sentiment"])
    assert ask(server, "sentiment", {"inputs": texts[0]}) == expected[:1]
    assert ask(server, "sentiment", {"inputs": texts}) == expected
    assert ask(server, "sentiment", "inputs\n{}\n{}\n".format(*texts), "text/csv") == expected
    both = ask(server, "sentiment", {"inputs": texts, "parameters": {"top_k": 2}})
    assert [[each["label"] for each in found] for found in both] == [["POSITIVE", "NEGATIVE"]] * 2
    with pytest.raises(ClientError) as raised:
        ask(server, "sentiment", ["this is no object"])
    told: dict[str, Any] = {**raised.value.response}
    assert told["OriginalStatusCode"] == 400
    assert json.loads(told["OriginalMessage"])["type"] == "InternalServerException"


def test_H06_a_picture_is_answered_as_it_comes_from_a_folder_of_the_archive(server: RunningServer) -> None:
    environment = {"HF_MODEL_ID": "/opt/ml/model/inside", "HF_TASK": "image-classification"}
    deployed(server, "picture", files("vit", "inside/"), Environment=environment)
    answer = ask(server, "picture", (KEPT / "picture.png").read_bytes(), "image/png")
    assert answer == near(EXPECTED["vit"])


def test_H06_a_pipeline_that_is_gone_is_answered_by_an_older_version(server: RunningServer) -> None:
    older = Catalog.load().named("huggingface")
    assert older is not None
    version = older.in_older_environment().version
    python_of("huggingface", is_older=True)  # built before, as an endpoint's patience is shorter
    assert deployed(server, "answers", files("answers")).startswith(f"clary/huggingface:{version}@")
    body = {
        "inputs": {"question": "who lives in paris", "context": "anna lives in london and bob lives in paris"}
    }
    assert [ask(server, "answers", body)] == near([EXPECTED["answers"]])


def test_H06_a_script_has_the_pipeline_as_its_model(server: RunningServer) -> None:
    deployed(server, "scripted-text", {**files("sentiment"), "code/inference.py": SCRIPT})
    kept = EXPECTED["sentiment"][0]
    answer = ask(server, "scripted-text", {"inputs": "this is a very good film"})
    assert answer == {"verdict": kept["label"].lower(), "sure": pytest.approx(kept["score"], rel=1e-4)}
    with pytest.raises(ClientError) as raised:
        ask(server, "scripted-text", {"inputs": "nothing"})
    told: dict[str, Any] = {**raised.value.response}
    assert json.loads(told["OriginalMessage"]) == {
        "code": 400,
        "type": "InternalServerException",
        "message": "nothing to say",
    }
