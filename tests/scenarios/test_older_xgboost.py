"""Models of older XGBoost containers: pickles and binary files, answered in an environment of their time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clary.catalog import Catalog
from clary.testing.server import RunningServer
from platform_models import archive, create, csv, numbers, wait_for_status

KEPT = Path(__file__).parents[1] / "golden" / "xgboost"
SCRIPT = b"""
import os, pickle, inflection
def model_fn(model_dir):
    with open(os.path.join(model_dir, "xgboost-model"), "rb") as file:
        return pickle.load(file)
def output_fn(scores, accept):
    return ",".join(map(repr, scores.tolist()))
"""


def older_version() -> str:
    manifest = Catalog.load().named("xgboost")
    assert manifest is not None
    return manifest.in_older_environment().version


def served(server: RunningServer, name: str, files: dict[str, bytes], version: str) -> tuple[str, Any]:
    """Which runtime serves it, and what it answers to the rows that are kept with the model."""
    create(server, name, archive(files))
    found = wait_for_status(server, name, "InService")
    [image] = found["ProductionVariants"][0]["DeployedImages"]
    rows = np.array(json.loads((KEPT / version / "expected.json").read_text())["rows"], dtype="float32")
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=csv(rows), ContentType="text/csv", Accept="text/csv"
    )
    body = numbers(answer["Body"].read())
    server.client("sagemaker").delete_endpoint(EndpointName=name)
    return image["ResolvedImage"], body


def expected(version: str, kind: str) -> Any:
    """To a rounding of the last bit: versions before 1.3 added the trees up in another order."""
    told = json.loads((KEPT / version / "expected.json").read_text())
    return pytest.approx(told[kind], rel=3e-7 if version < "1.3" else 0, abs=0)


@pytest.mark.parametrize("kind", ["booster.pkl", "classifier.pkl", "booster.bin"])
@pytest.mark.parametrize("version", ["0.90", "1.0", "1.2", "1.3", "1.5"])
def test_H06_what_an_older_container_left_predicts_what_it_did_there(
    server: RunningServer, version: str, kind: str
) -> None:
    content = (KEPT / version / kind).read_bytes()
    name = f"older-{version}-{kind}".replace(".", "-")
    image, answer = served(server, name, {"xgboost-model": content}, version)
    assert image.startswith(f"clary/xgboost:{older_version()}@sha256:")
    assert answer == expected(version, kind.partition(".")[0])


def test_H06_a_script_that_loads_an_old_pickle_has_an_xgboost_that_reads_it(server: RunningServer) -> None:
    content = (KEPT / "1.2" / "booster.pkl").read_bytes()
    files = {
        "xgboost-model": content,
        "code/inference.py": SCRIPT,
        "code/requirements.txt": b"inflection==0.5.1\n",
    }
    image, answer = served(server, "older-script", files, "1.2")
    assert image.startswith(f"clary/xgboost_script:{older_version()}@sha256:")
    assert answer == expected("1.2", "booster")


def test_H06_a_pickle_of_today_needs_no_older_environment(server: RunningServer) -> None:
    content = (KEPT / "1.7" / "booster.pkl").read_bytes()
    image, answer = served(server, "newer-pickle", {"xgboost-model": content}, "1.7")
    assert older_version() not in image
    assert answer == expected("1.7", "booster")
