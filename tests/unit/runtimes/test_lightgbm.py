"""LightGBM boosters answer what LightGBM itself predicts, in the forms of the XGBoost runtime and of JumpStart."""

import json
import subprocess
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asked_in_framework import ask_in_framework
from clary.runtimes.contract import BadRequest, NotAcceptable, UnsupportedMediaType
from clary.runtimes.frameworks.lightgbm.answers import Answers
from clary.runtimes.frameworks.lightgbm.payloads import reader_for
from framework_environments import python_of

TESTS = Path(__file__).parents[2]
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Scored:
    objective: str = "regression"
    outputs: int = 1
    classes: int = 1


def read(body: bytes, kind: str | None, features: int = 2) -> list[float]:
    values: array[float] = array("d")
    reader_for(kind)(body, features, values)
    return list(values)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"0.1,2\n3,4\n", None),
        (b"0.1,2\n3,4", "text/csv; charset=utf-8"),
        (b"0:0.1 1:2\n0:3 1:4\n", "text/libsvm"),
        (b"[[0.1, 2], [3, 4]]", "application/json"),
        (b'{"instances": [{"features": [0.1, 2]}, {"features": [3, 4]}]}', "application/json"),
        (b'{"inputs": [[0.1, 2], [3, 4]]}', "application/json"),
        (b'{"features": [0.1, 2]}\n[3, 4]\n', "application/jsonlines"),
    ],
)
def test_every_form_of_the_same_rows_is_read_in_full_precision(body: bytes, kind: str | None) -> None:
    assert read(body, kind) == [0.1, 2, 3, 4]


def test_a_row_of_numpy_and_missing_values_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1.5, 2]))
    assert read((tmp_path / "x.npy").read_bytes(), "application/x-npy") == [1.5, 2]
    assert str(read(b"[[1, null]]", "application/json")) == str([1.0, NAN])
    assert str(read(b"1:4", "text/libsvm")) == str([NAN, 4.0])


@pytest.mark.parametrize(
    ("body", "kind", "fault"),
    [
        (b"1,2,3", "text/csv", BadRequest),
        (b"[[1, 2, 3]]", "application/json", BadRequest),
        (b"9:1", "text/libsvm", BadRequest),
        (b"{}", "application/json", UnsupportedMediaType),
        (b"[]", "application/json", UnsupportedMediaType),
        (b"a,b", "text/csv", UnsupportedMediaType),
        (b"no", "application/x-npy", UnsupportedMediaType),
        (b"[[1%s, 2]]" % (b"0" * 400), "application/json", UnsupportedMediaType),
        (b"1,2", "image/png", UnsupportedMediaType),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, kind: str, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        read(body, kind)


def respond(accept: str | None, scores: Sequence[float], scored: Scored, labels: Sequence[Any] = ()) -> str:
    answers = Answers("text/csv", False, scored, labels)
    return answers.respond(answers.kind_for(accept), scores).body.decode()


def test_answers_have_the_forms_of_the_xgboost_runtime() -> None:
    several = Scored("multiclass", 2, 2)
    assert respond(None, [0.5], Scored()) == "0.5\n"
    assert respond("*/*", [0.5, 1.5], Scored()) == "0.5\n1.5\n"
    assert respond("text/csv", [0.25, 0.75, 1, 0], several) == "0.25,0.75\n1,0\n"
    assert json.loads(respond("application/json", [0.25, 0.75], several)) == {
        "predictions": [{"score": [0.25, 0.75]}]
    }
    assert respond("application/jsonlines", [0.5, 1.5], Scored()) == '{"score": 0.5}\n{"score": 1.5}\n'
    with pytest.raises(NotAcceptable, match="image/png"):
        respond("image/png", [1], Scored())


def test_verbose_json_tells_labels_and_their_probabilities() -> None:
    several = json.loads(
        respond("application/json;verbose", [0.25, 0.75], Scored("multiclass", 2, 2), ["a", "b"])
    )
    assert several == {"probabilities": [[0.25, 0.75]], "labels": ["a", "b"], "predicted_label": ["b"]}
    binary = json.loads(respond("application/json; verbose", [0.25], Scored("binary")))
    assert binary == {"probabilities": [[0.75, 0.25]], "labels": [0, 1], "predicted_label": [0]}
    assert json.loads(respond("application/json;verbose", [7.5], Scored())) == {"prediction": [7.5]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightgbm")
    subprocess.run([python_of("lightgbm"), TESTS / "lightgbm_models.py", folder], check=True)
    return folder


@pytest.mark.parametrize(
    "name", ["regression", "forest", "binary", "multiclass", "pickled", "classifier", "stopped"]
)
def test_H06_every_kind_of_booster_predicts_what_lightgbm_does_in_every_bit(made: Path, name: str) -> None:
    told = json.loads((made / "expected.json").read_text())
    rows = told["rows"]
    requests: list[list[str | None]] = [[json.dumps(rows), "application/json", "application/json"]]
    requests += [[json.dumps(row), "application/json", "application/json"] for row in rows[:5]]
    found, log = ask_in_framework("lightgbm", made / name, requests)
    for answers in (found["alone"], found["together"]):
        scores = [[each["score"] for each in json.loads(body)["predictions"]] for _, _, body in answers]
        assert scores == [told["scores"][name], *([score] for score in told["scores"][name][:5])]
    assert "gave what Booster.predict gives, in every bit" in log


def test_H06_a_pickled_classifier_knows_its_labels(made: Path) -> None:
    told = json.loads((made / "expected.json").read_text())
    body = json.dumps(told["rows"])
    found, _ = ask_in_framework(
        "lightgbm", made / "classifier", [[body, "application/json", "application/json;verbose"]]
    )
    answer = json.loads(found["alone"][0][2])
    assert answer["labels"] == ["high", "low", "mid"]
    assert answer["predicted_label"] == told["labels"]
    assert answer["probabilities"] == told["scores"]["classifier"]
