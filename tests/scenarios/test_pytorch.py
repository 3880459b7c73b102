"""A user's story: PyTorch models as TorchScript, as weights with a script, and as a TorchServe archive."""

import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from framework_environments import python_of
from platform_models import archive, create, csv, eventually, status, wait_for_status

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
MAKER = Path(__file__).parent.parent / "pytorch_models.py"
MODEL_FN = """
import os, torch
from network import Net

def model_fn(model_dir):
    model = Net()
    model.load_state_dict(torch.load(os.path.join(model_dir, "weights.pth")))
    return model
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([python_of("pytorch"), MAKER, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / "expected.json").read_text())
    return found


def files(made: Path, *names: str, **more: bytes) -> bytes:
    return archive({**{name: (made / name).read_bytes() for name in names}, **more})


def ask(
    server: RunningServer, name: str, body: Any, kind: str = "application/json", accept: str = "*/*"
) -> bytes:
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=body, ContentType=kind, Accept=accept
    )
    content: bytes = answer["Body"].read()
    return content


def test_H06_torchscript_without_a_script_answers_json_csv_and_npy(
    server: RunningServer, made: Path, expected: dict[str, Any]
) -> None:
    create(server, "scripted", files(made, "model.pt"), Image=IMAGE)
    found = wait_for_status(server, "scripted", "InService")
    deployed = found["ProductionVariants"][0]["DeployedImages"][0]
    assert "pytorch:2.13.0" in deployed["ResolvedImage"]
    rows, answers = expected["rows"], np.array(expected["answers"])
    assert np.allclose(json.loads(ask(server, "scripted", json.dumps(rows))), answers, rtol=1e-6)
    text = ask(server, "scripted", csv(rows), "text/csv", "text/csv").decode()
    assert np.allclose([float(line) for line in text.splitlines()], answers[:, 0], rtol=1e-5)
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows, dtype=np.float32))
    binary = ask(server, "scripted", buffer.getvalue(), "application/x-npy", "application/x-npy")
    assert np.allclose(np.load(io.BytesIO(binary)), answers, rtol=1e-6)
    # Many at once: joined where that is the same, and every answer its own request's.
    with ThreadPoolExecutor(16) as pool:
        many = list(pool.map(lambda row: json.loads(ask(server, "scripted", json.dumps([row]))), rows * 20))
    assert np.allclose(np.array(many)[:, 0], np.tile(answers, (20, 1)), rtol=1e-4)


def test_H06_weights_with_model_fn_and_torch_among_the_requirements_stay_on_the_cpu_build(
    server: RunningServer, made: Path, expected: dict[str, Any]
) -> None:
    script = MODEL_FN + (
        "import inflection\ndef output_fn(prediction, accept):\n"
        "    return inflection.underscore('TheVersion') + f' {torch.__version__} {prediction.tolist()}', 'text/plain'\n"
    )
    code = {
        "code/inference.py": script.encode(),
        "code/network.py": (made / "network.py").read_bytes(),
        "code/requirements.txt": b"torch\ninflection==0.5.1\n",
    }
    create(
        server,
        "torch-weights",
        archive({"weights.pth": (made / "weights.pth").read_bytes(), **code}),
        Image=IMAGE,
    )
    wait_for_status(server, "torch-weights", "InService")
    word, version, answer = ask(server, "torch-weights", json.dumps(expected["rows"])).decode().split(" ", 2)
    assert (word, version) == ("the_version", expected["torch"])
    assert version.endswith("+cpu")
    assert np.allclose(json.loads(answer), expected["answers"], rtol=1e-6)


def test_H06_weights_alone_fail_with_what_to_write(server: RunningServer, made: Path) -> None:
    create(server, "alone", files(made, "weights.pth"), Image=IMAGE)
    reason = eventually(lambda: status(server, "alone").get("FailureReason"), "the deployment to fail")
    assert "weights.pth was written by torch.save" in reason
    assert "model_fn(model_dir)" in reason


def test_H06_a_torchserve_archive_answers_in_batches_and_with_its_own_statuses(
    server: RunningServer, made: Path, expected: dict[str, Any]
) -> None:
    create(server, "archived", files(made, "rows.mar"), Image=IMAGE)
    wait_for_status(server, "archived", "InService")
    with ThreadPoolExecutor(16) as pool:
        asked = [json.dumps(row) for row in expected["rows"]] * 10
        answers = [json.loads(body) for body in pool.map(lambda body: ask(server, "archived", body), asked)]
    scores = [[answer["score"]] for answer in answers]
    assert np.allclose(scores, np.tile(expected["answers"], (10, 1)), rtol=1e-4)
    assert all(1 <= answer["together"] <= 8 for answer in answers)
    with pytest.raises(ClientError) as failed:
        ask(server, "archived", "[1.0]")
    told: dict[str, Any] = {**failed.value.response}
    assert told["OriginalStatusCode"] == 422
    assert "seven numbers a row" in told["OriginalMessage"]
