"""A user's story: a LightGBM booster by itself, and with a script of the user's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clary.testing.server import RunningServer
from framework_environments import python_of
from platform_models import archive, create, csv, numbers, wait_for_status

MAKER = Path(__file__).parent.parent / "lightgbm_models.py"
SCRIPT = b"""
def input_fn(data, content_type):
    return [[float(field) for field in line.split(",")] for line in data.splitlines()]

def output_fn(prediction, accept):
    return {"best": int(prediction[0].argmax())}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightgbm")
    subprocess.run([python_of("lightgbm"), MAKER, folder], check=True)
    return folder


def deploy(server: RunningServer, name: str, files: dict[str, bytes]) -> None:
    create(server, name, archive(files), Image="sagemaker-lightgbm:4")
    [image] = wait_for_status(server, name, "InService")["ProductionVariants"][0]["DeployedImages"]
    assert image["ResolvedImage"].startswith("clary/lightgbm:4.")


def ask(server: RunningServer, name: str, rows: Any, accept: str) -> bytes:
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=csv(rows), Accept=accept)
    content: bytes = answer["Body"].read()
    return content


def test_H06_a_booster_answers_csv_and_jumpstart_s_json(server: RunningServer, made: Path) -> None:
    told = json.loads((made / "expected.json").read_text())
    rows, wanted = told["rows"], told["scores"]["multiclass"]
    deploy(server, "lightgbm", {"model.txt": (made / "multiclass" / "model.txt").read_bytes()})
    assert numbers(ask(server, "lightgbm", rows, "text/csv")) == [score for row in wanted for score in row]
    answer = json.loads(ask(server, "lightgbm", rows, "application/json;verbose"))
    assert answer["probabilities"] == wanted
    assert answer["predicted_label"] == [row.index(max(row)) for row in wanted]


def test_H06_a_script_gets_the_booster(server: RunningServer, made: Path) -> None:
    told = json.loads((made / "expected.json").read_text())
    model = (made / "multiclass" / "model.txt").read_bytes()
    deploy(server, "lightgbm-script", {"model.txt": model, "code/inference.py": SCRIPT})
    wanted = told["scores"]["multiclass"][0]
    answer = json.loads(ask(server, "lightgbm-script", told["rows"][:1], "application/json"))
    assert answer == {"best": wanted.index(max(wanted))}
