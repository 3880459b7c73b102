"""The model against the Python package: whatever a booster predicts there, it answers here."""

import json
import math
from array import array
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, LoadError
from clary.runtimes.frameworks.xgboost import model as xgboost_model
from clary.runtimes.frameworks.xgboost.model import XGBoostModel, load

OBJECTIVES: list[dict[str, Any]] = [
    {"objective": "reg:squarederror"},
    {"objective": "reg:logistic"},
    {"objective": "reg:gamma", "base_score": 0.7},
    {"objective": "reg:absoluteerror"},
    {"objective": "reg:tweedie"},
    {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.5},
    {"objective": "reg:squarederror", "booster": "gblinear"},
    {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5},
    {"objective": "count:poisson"},
    {"objective": "binary:logistic", "base_score": 0.2},
    {"objective": "binary:logitraw"},
    {"objective": "binary:hinge"},
    {"objective": "multi:softprob", "num_class": 3},
    {"objective": "multi:softmax", "num_class": 3},
    {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"},
    {"objective": "rank:pairwise"},
    {"objective": "survival:cox"},
    {"objective": "reg:squarederror", "targets": 2},
    {"objective": "reg:squarederror", "targets": 3, "multi_strategy": "multi_output_tree"},
]


class Trained(NamedTuple):
    booster: xgboost.Booster
    features: int
    directory: Path


def train(parameters: dict[str, Any], features: int, seed: int, rounds: int = 4) -> xgboost.Booster:
    parameters = {"nthread": 1, "seed": seed, **parameters}
    if parameters.get("booster") != "gblinear":
        parameters["max_depth"] = 3
    random = np.random.default_rng(seed)
    rows = random.random((60, features)).astype(np.float32)
    rows[random.random(rows.shape) < 0.1] = np.nan
    targets = parameters.pop("targets", 1)
    labels = random.integers(0, parameters.get("num_class", 2), (60, targets)).astype(np.float32)
    if str(parameters["objective"]).startswith(("reg:gamma", "reg:tweedie", "survival", "count")):
        labels += 1
    matrix = xgboost.DMatrix(rows, labels if targets > 1 else labels[:, 0])
    if str(parameters["objective"]).startswith("rank:"):
        matrix.set_info(group=[30, 30])
    return xgboost.train(parameters, matrix, rounds)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    found = []
    for number, parameters in enumerate(OBJECTIVES):
        features = 1 + number % 5
        directory = tmp_path_factory.mktemp("model")
        booster = train(parameters, features, seed=number)
        kind = ("ubj", "json")[number % 2]
        (directory / "xgboost-model").write_bytes(bytes(booster.save_raw(kind)))
        found.append(Trained(booster, features, directory))
    return found


def request(
    body: str | bytes, content_type: str | None = "text/csv", accept: str | None = None
) -> InvocationRequest:
    head = InvocationHead(content_type, accept, "", ())
    return InvocationRequest(head, body.encode() if isinstance(body, str) else body)


def csv(rows: np.ndarray[Any, Any]) -> str:
    return "\n".join(",".join("" if math.isnan(v) else repr(float(v)) for v in row) for row in rows)


def libsvm(rows: np.ndarray[Any, Any]) -> str:
    return "\n".join(
        " ".join(f"{n}:{float(v)!r}" for n, v in enumerate(row) if not math.isnan(v)) for row in rows
    )


def json_lines(rows: np.ndarray[Any, Any]) -> str:
    return "\n".join(
        json.dumps({"features": [None if math.isnan(v) else float(v) for v in row]}) for row in rows
    )


def read_csv(response: InvocationResponse) -> list[Any]:
    assert response.status == 200, response.body
    assert response.content_type == "text/csv; charset=utf-8"
    rows = [[float(field) for field in line.split(",")] for line in response.body.decode().splitlines()]
    return [row[0] if len(row) == 1 else row for row in rows]


def same(found: Any, expected: Any) -> bool:
    """Equal up to the last digit of a float32: the library's exp() rounds differently in the rest of a block."""
    return np.shape(found) == np.shape(expected) and np.allclose(found, expected, rtol=1e-6, atol=1e-7)


def rows_of(seed: int, count: int, features: int) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, features)).astype(np.float32)
    rows[random.random(rows.shape) < 0.2] = np.nan
    rows[:, 0] = 0.25  # libsvm cannot say that there is a row with nothing in it at the end
    return rows


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.integers(0, len(OBJECTIVES) - 1),
    st.integers(0, 10_000),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_H02_every_objective_answers_what_its_booster_predicts(
    trained: list[Trained], which: int, seed: int, counts: list[int]
) -> None:
    """In every form of input, alone and together with others, which may be bad."""
    booster, features, directory = trained[which]
    model = load(directory, {}, 1)
    parts = [rows_of(seed + number, count, features) for number, count in enumerate(counts)]
    expected = [booster.predict(xgboost.DMatrix(part), validate_features=False).tolist() for part in parts]
    forms = [("text/csv", csv), ("text/libsvm", libsvm), ("application/jsonlines", json_lines)]
    requests = []
    for number, part in enumerate(parts):
        content_type, write = forms[(seed + number) % 3]
        requests += [request(write(part), content_type), request("x" * number)]
    together = model.predict(requests)
    for found, wanted in zip(together[::2], expected, strict=True):
        assert same(read_csv(found), wanted)
    assert [response.status for response in together[1::2]] == [204] + [415] * (len(parts) - 1)
    for each, found in zip(requests[::2], together[::2], strict=True):
        assert same(read_csv(model.predict([each])[0]), read_csv(found))


def test_answer_formats(trained: list[Trained]) -> None:
    booster, features, directory = trained[0]
    rows = rows_of(1, 2, features)
    first, second = booster.predict(xgboost.DMatrix(rows)).tolist()
    model = load(directory, {}, 1)
    answers = {accept: model.predict([request(csv(rows), accept=accept)])[0] for accept in FORMATS}
    assert answers[None].body == f"{first!r}\n{second!r}\n".encode()
    assert answers["*/*"] == answers["text/csv; q=1"] == answers[None]
    assert answers["application/json"] == InvocationResponse(
        200, "application/json", json.dumps({"predictions": [{"score": first}, {"score": second}]}).encode()
    )
    assert (
        answers["application/jsonlines"].body == f'{{"score": {first!r}}}\n{{"score": {second!r}}}\n'.encode()
    )
    assert answers["application/jsonlines"].content_type == "application/jsonlines"
    assert answers["image/png"].status == 406
    assert answers["image/png"].body.startswith(
        b"Accept type image/png is not supported. Please use supported accept types: ['application/json',"
    )
    assert answers["application/x-recordio-protobuf"].status == 406


FORMATS = (
    None,
    "*/*",
    "text/csv; q=1",
    "application/json",
    "application/jsonlines",
    "image/png",
    "application/x-recordio-protobuf",
)


def test_several_classes_stand_in_one_line_or_list(trained: list[Trained]) -> None:
    booster, features, directory = next(each for each in trained if "softprob" in config_of(each))
    rows = rows_of(2, 2, features)
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    model = load(directory, {}, 1)
    answer = model.predict([request(csv(rows), accept="application/json")])[0]
    assert json.loads(answer.body) == {"predictions": [{"score": row} for row in expected]}
    assert same(read_csv(model.predict([request(csv(rows))])[0]), expected)


def config_of(each: Trained) -> str:
    return str(json.loads(each.booster.save_config())["learner"]["objective"]["name"])


def test_the_environment_sets_default_accept_and_batch(trained: list[Trained]) -> None:
    booster, features, directory = next(each for each in trained if "softprob" in config_of(each))
    rows = rows_of(3, 2, features)
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    default = load(directory, {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/jsonlines"}, 1)
    lines = default.predict([request(csv(rows))])[0].body.splitlines()
    assert [json.loads(line)["score"] for line in lines] == expected
    batch = load(directory, {"SAGEMAKER_BATCH": "true"}, 1)
    answer = batch.predict([request(csv(rows), accept="application/json")])[0]
    assert answer.body.decode() == f"{expected[0]}\n{expected[1]}\n"


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (
            "binary:logistic",
            {"predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores"},
        ),
        (
            "multi:softprob",
            {"predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores"},
        ),
        ("multi:softmax", {"predicted_label", "labels", "raw_score", "raw_scores"}),
        ("binary:hinge", {"predicted_label", "labels", "raw_score", "raw_scores"}),
        ("binary:logitraw", {"predicted_label", "labels", "raw_score", "raw_scores"}),
        ("reg:squarederror", {"predicted_score"}),
    ],
)
def test_selected_output_fits_the_objective(
    trained: list[Trained], objective: str, expected: set[str]
) -> None:
    booster, features, directory = next(each for each in trained if config_of(each) == objective)
    rows = rows_of(4, 3, features)
    raw = booster.predict(xgboost.DMatrix(rows))
    keys = "predicted_label, labels,probability,probabilities,raw_score,raw_scores,predicted_score"
    model = load(directory, {"SAGEMAKER_INFERENCE_OUTPUT": keys}, 1)
    answer = model.predict([request(csv(rows), accept="application/json")])[0]
    for found, scores in zip(json.loads(answer.body)["predictions"], raw, strict=True):
        assert {key for key, value in found.items() if value == value} == expected  # the others are NaN
        if objective == "multi:softprob":
            assert found["predicted_label"] == int(scores.argmax())
            assert found["labels"] == [0, 1, 2]
            assert found["probability"] == found["raw_score"] == float(scores.max())
            assert found["probabilities"] == scores.tolist()
        if objective == "binary:logistic":
            assert found["predicted_label"] == int(scores > 0.5)
            assert found["probabilities"] == [1.0 - float(scores), float(scores)]
        if objective == "reg:squarederror":
            assert found["predicted_score"] == float(scores)
    text = model.predict([request(csv(rows))])[0].body.decode()
    assert len(text.splitlines()) == 3
    assert not text.endswith("\n")


def test_selected_output_in_csv_quotes_lists(trained: list[Trained]) -> None:
    _, features, directory = next(each for each in trained if config_of(each) == "binary:logistic")
    model = load(directory, {"SAGEMAKER_INFERENCE_OUTPUT": "labels,predicted_label"}, 1)
    text = model.predict([request(csv(rows_of(4, 1, features)))])[0].body.decode()
    assert text in ('"[0, 1]",0', '"[0, 1]",1')


def test_an_objective_that_cannot_select_says_so_at_each_request(trained: list[Trained]) -> None:
    _, features, directory = next(each for each in trained if config_of(each) == "count:poisson")
    model = load(directory, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_score"}, 1)
    answer = model.predict([request(csv(rows_of(4, 1, features)))])[0]
    assert answer.status == 500
    assert answer.body == b"Objective `count:poisson` unsupported for selectable inference predictions."


def test_an_ensemble_is_the_mean(tmp_path: Path) -> None:
    boosters = [train({"objective": "multi:softprob", "num_class": 3}, 4, seed) for seed in range(3)]
    model = load_all(tmp_path, boosters)
    rows = rows_of(5, 4, 4)
    expected = np.mean([booster.predict(xgboost.DMatrix(rows)) for booster in boosters], axis=0)
    assert same(read_csv(model.predict([request(csv(rows))])[0]), expected)


def test_an_ensemble_of_labels_votes_and_prefers_the_smaller(tmp_path: Path) -> None:
    boosters = [train({"objective": "multi:softmax", "num_class": 3}, 4, seed, 1) for seed in range(4)]
    model = load_all(tmp_path, boosters)
    rows = rows_of(6, 30, 4)
    each = np.array([booster.predict(xgboost.DMatrix(rows)) for booster in boosters]).T.tolist()
    expected = [min(votes, key=lambda label: (-votes.count(label), label)) for votes in each]
    assert same(read_csv(model.predict([request(csv(rows))])[0]), expected)


def load_all(directory: Path, boosters: list[xgboost.Booster]) -> XGBoostModel:
    for number, booster in enumerate(boosters):
        (directory / f"model-{number}").write_bytes(bytes(booster.save_raw("ubj")))
    return load(directory, {}, 1)


def test_an_ensemble_of_different_shapes_is_refused(tmp_path: Path) -> None:
    boosters = [train({"objective": "reg:squarederror"}, features, 1) for features in (2, 3)]
    with pytest.raises(LoadError, match="differ in the number of their features"):
        load_all(tmp_path, boosters)


def test_many_rows_are_predicted_on_several_threads_with_the_same_result(
    trained: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xgboost_model, "ROWS_A_THREAD", 16)
    for booster, features, directory in trained:
        model = load(directory, {}, 3)
        rows = rows_of(7, 101, features)
        expected = booster.predict(xgboost.DMatrix(rows)).tolist()
        assert same(read_csv(model.predict([request(csv(rows))])[0]), expected)


def test_infinite_values_are_refused_for_their_request_only(trained: list[Trained]) -> None:
    _, features, directory = trained[0]
    model = load(directory, {}, 1)
    good = ",".join(["1"] * features)
    found = model.predict([request(good), request(good.replace("1", "1e99")), request("inf"), request(good)])
    assert [response.status for response in found] == [200, 415, 415, 200]
    assert b"inf" in found[1].body
    assert found[0] == found[3] == model.predict([request(good)])[0]


def test_a_model_that_stopped_early_under_an_old_version_uses_its_best_rounds(tmp_path: Path) -> None:
    booster = train({"objective": "reg:squarederror"}, 3, 1, rounds=6)
    booster.set_attr(best_iteration="2")
    rows = rows_of(8, 5, 3)
    matrix = xgboost.DMatrix(rows)
    assert (
        read_csv(load_all(tmp_path, [booster]).predict([request(csv(rows))])[0])
        == booster.predict(matrix).tolist()
    )
    booster.set_attr(best_ntree_limit="3")  # only versions before 2 write it
    best = booster.predict(matrix, iteration_range=(0, 3)).tolist()
    assert read_csv(load_all(tmp_path, [booster]).predict([request(csv(rows))])[0]) == best


def test_a_damaged_model_is_refused_in_words(tmp_path: Path) -> None:
    content = bytes(train({"objective": "reg:squarederror"}, 3, 1).save_raw("json"))
    (tmp_path / "xgboost-model").write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError, match="XGBoost cannot load xgboost-model: ") as caught:
        load(tmp_path, {}, 1)
    assert "Stack trace" not in str(caught.value)


def test_the_payload_limit_is_the_containers_unless_set(trained: list[Trained]) -> None:
    directory = trained[0].directory
    assert load(directory, {}, 1).limits.max_payload_bytes == 6_291_456
    assert load(directory, {"MAX_CONTENT_LENGTH": "1000"}, 1).limits.max_payload_bytes == 1000
    with pytest.raises(LoadError, match="MAX_CONTENT_LENGTH"):
        load(directory, {"MAX_CONTENT_LENGTH": "6 MB"}, 1)


def test_the_library_is_used_from_several_threads_at_once(trained: list[Trained]) -> None:
    """Each thread has a matrix of its own; two predictions never share one."""
    booster, features, directory = trained[0]
    model = load(directory, {}, 4)
    rows = rows_of(9, 40_000, features)
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    values: array[float] = array("f", rows.ravel().tolist())
    assert same(model._forest.predict(values), expected)
