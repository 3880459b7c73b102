"""A user's story: an ONNX graph by itself, through the SDK's PyTorch and TensorFlow images, and with a script."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_models import archive, create, wait_for_status

KEPT = Path(__file__).parents[1] / "golden" / "onnx"
EXPECTED: dict[str, Any] = json.loads((KEPT / "expected.json").read_text())
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
ONNX = f"{REGISTRY}/onnxruntime:1.17"
SCRIPT = b"""
def output_fn(prediction, accept):
    return {"columns": len(prediction[0]), "first": prediction[0].tolist()}
"""


def deployed(server: RunningServer, name: str, image: str, files: dict[str, bytes]) -> str:
    """Which runtime serves it."""
    create(server, name, archive(files), Image=image)
    found = wait_for_status(server, name, "InService")
    [told] = found["ProductionVariants"][0]["DeployedImages"]
    return str(told["ResolvedImage"])


def ask(server: RunningServer, name: str, body: Any) -> Any:
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=json.dumps(body))
    return json.loads(answer["Body"].read())


def graph(name: str) -> bytes:
    return (KEPT / f"{name}.onnx").read_bytes()


def test_H07_a_graph_answers_in_a_generic_image(server: RunningServer) -> None:
    assert deployed(server, "onnx-linear", ONNX, {"linear.onnx": graph("linear")}).startswith("clary/onnx:")
    kept = EXPECTED["linear"]
    for body in (kept["inputs"]["x"], {"inputs": kept["inputs"]}):
        for row, wanted in zip(ask(server, "onnx-linear", body), kept["outputs"]["y"], strict=True):
            assert row == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ClientError, match=r"x\[\?, 7\] does not take an array of shape \[1, 2\]"):
        ask(server, "onnx-linear", [[1, 2]])


@pytest.mark.parametrize("image", ["pytorch-inference:2.1-cpu-py310", "tensorflow-inference:2.13-cpu"])
def test_H07_a_graph_without_a_script_answers_in_an_image_of_another_framework(
    server: RunningServer, image: str
) -> None:
    name = f"onnx-in-{image.partition('-')[0]}"
    files = {"model.onnx": graph("two_inputs")}
    assert deployed(server, name, f"{REGISTRY}/{image}", files).startswith("clary/onnx:")
    kept = EXPECTED["two_inputs"]
    answer = ask(server, name, kept["inputs"])
    assert answer["top"] == pytest.approx(kept["outputs"]["top"], rel=1e-5)
    assert answer["sum"][2] == pytest.approx(kept["outputs"]["sum"][2], rel=1e-5)


def test_H07_a_script_may_leave_everything_but_its_own_part_to_the_runtime(server: RunningServer) -> None:
    files = {"model.onnx": graph("linear"), "code/inference.py": SCRIPT}
    assert deployed(server, "onnx-script", ONNX, files).startswith("clary/onnx:")
    kept = EXPECTED["linear"]
    answer = ask(server, "onnx-script", kept["inputs"]["x"])
    assert answer == {"columns": 3, "first": pytest.approx(kept["outputs"]["y"][0], rel=1e-5)}
