"""MLflow's protocol against MLflow's own scoring server, in the environment that Clary builds for it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.mlflow.model import load
from framework_environments import python_of

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What was asked of models that MLflow saved, what its server answers, and what ours does."""
    folder = tmp_path_factory.mktemp("mlflow")
    ran = subprocess.run(
        [python_of("mlflow"), TESTS / "mlflow_checks.py", folder],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src")},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def test_H06_every_request_has_the_status_that_mlflow_gives_it(told: list[dict[str, Any]]) -> None:
    assert {each["theirs"][0] for each in told} == {200, 400, 415}
    for each in told:
        assert each["ours"][0] == each["theirs"][0], each


def test_H06_every_answer_and_every_error_is_mlflow_s(told: list[dict[str, Any]]) -> None:
    for each in told:
        theirs, ours = each["theirs"][1], each["ours"][1]
        if each["theirs"][0] == 200:
            assert ours == theirs, each
        elif each["theirs"][0] == 400:
            assert ours["error_code"] == theirs["error_code"], each
    [unfit] = [each for each in told if '["y"]' in each["asked"][2]]
    assert unfit["ours"] == unfit["theirs"]  # the signature's own words
    [raised] = [each for each in told if "13.0" in each["asked"][2]]
    assert "ZeroDivisionError: thirteen" in raised["ours"][1]["stack_trace"]


def test_a_directory_inside_the_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(
        LoadError, match="no MLmodel file at its root beside model: pack what is in the directory"
    ):
        load(tmp_path, {}, 1)


def test_another_flavor_than_python_function_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").touch()
    with pytest.raises(LoadError, match="MLFLOW_DEPLOYMENT_FLAVOR_NAME is mleap"):
        load(tmp_path, {"MLFLOW_DEPLOYMENT_FLAVOR_NAME": "mleap"}, 1)
