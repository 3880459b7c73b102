"""ONNX graphs: bodies become arrays by what a graph declares, and requests are joined where that changes nothing."""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asked_in_framework import ask_in_framework
from clary.runtimes.contract import BadRequest, NotAcceptable, UnsupportedMediaType
from clary.runtimes.frameworks.onnx import payloads
from clary.runtimes.frameworks.onnx.answers import answer, kind_for
from clary.runtimes.frameworks.onnx.inputs import Input
from clary.runtimes.frameworks.onnx.joining import Arrays, Joiner
from clary.runtimes.frameworks.onnx.payloads import Asked, check_outputs, fitted, reader_for

KEPT = Path(__file__).parents[2] / "golden" / "onnx"
EXPECTED: dict[str, Any] = json.loads((KEPT / "expected.json").read_text())

HUGE = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }".ljust(117)
    + b"\n"
)
"""An array that says it had terabytes."""

X = Input("x", np.dtype(np.float32), (None, 2))
KIND = Input("kind", np.dtype(np.int64), (None,))
WORD = Input("word", np.dtype(np.object_), (None,))
FLAG = Input("flag", np.dtype(np.bool_), (None, 1))


def read(body: str | bytes, kind: str | None, *inputs: Input) -> Asked:
    return reader_for(kind)(body if isinstance(body, bytes) else body.encode(), inputs)


def values(asked: Asked) -> dict[str, Any]:
    return {name: array.tolist() for name, array in asked.arrays.items()}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("[[1, 2], [3, 4]]", None),
        ("[[1, 2], [3, 4]]", "application/json; charset=utf-8"),
        ('{"inputs": [[1, 2], [3, 4]]}', "application/json"),
        ('{"inputs": {"x": [[1, 2], [3, 4]]}}', "application/json"),
        ('{"x": [[1, 2], [3, 4]]}', "application/json"),
        ('{"instances": [[1, 2], [3, 4]]}', "application/json"),
        ('{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', "application/json"),
        ('{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}', None),
        ("1,2\n3,4\n", "text/csv"),
        ("[1, 2]\n[3, 4]\n", "application/jsonlines"),
    ],
)
def test_every_form_of_the_same_rows_is_the_same_array(body: str, kind: str | None) -> None:
    asked = read(body, kind, X)
    assert values(asked) == {"x": [[1, 2], [3, 4]]}
    assert asked.arrays["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"kind": [3, 4], "x": [[1, 2], [5, 6]]}', "application/json"),
        ('{"inputs": {"kind": [3, 4], "x": [[1, 2], [5, 6]]}}', "application/json"),
        ('[{"kind": 3, "x": [1, 2]}, {"kind": 4, "x": [5, 6]}]', "application/json"),
        ('{"kind": 3, "x": [1, 2]}\n{"kind": 4, "x": [5, 6]}', "application/jsonlines"),
    ],
)
def test_several_inputs_go_by_their_names(body: str, kind: str) -> None:
    asked = read(body, kind, KIND, X)
    assert values(asked) == {"kind": [3, 4], "x": [[1, 2], [5, 6]]}
    assert asked.arrays["kind"].dtype == np.int64


def test_columns_of_csv_are_inputs_of_one_column_each_in_any_order_with_a_heading() -> None:
    assert values(read("a,1\nb,0", "text/csv", WORD, FLAG)) == {"word": ["a", "b"], "flag": [[True], [False]]}
    assert values(read("flag,word\n1,a", "text/csv", WORD, FLAG)) == {"word": ["a"], "flag": [[True]]}


def test_numpy_s_own_forms_are_read(tmp_path: Path) -> None:
    array = np.array([[1, 2]], dtype=np.float64)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array, kind=np.array([7]))
    assert values(read((tmp_path / "x.npy").read_bytes(), "application/x-npy", X)) == {"x": [[1, 2]]}
    found = read((tmp_path / "x.npz").read_bytes(), "application/x-npz", X, KIND)
    assert values(found) == {"x": [[1, 2]], "kind": [7]}


@pytest.mark.parametrize(
    ("body", "inputs", "words"),
    [
        ("[[1, 2, 3]]", [X], "does not take an array of shape"),
        ("[[1, 2], [3]]", [X], "float32"),
        ('[["a", 2]]', [X], "could not convert string to float"),
        ("[1.5]", [KIND], "a fraction"),
        ("[9223372036854775808]", [KIND], "beyond"),
        ('["a"]', [KIND], "could not convert"),
        ("[1]", [KIND, X], "several inputs"),
        ('{"kind": [1]}', [KIND, X], "given are kind"),
        ('[{"kind": 1}]', [KIND, X], "a row has to name the inputs"),
        ('{"inputs": [{"name": "x", "shape": [3], "data": [1, 2]}]}', [X], "do not have its shape"),
    ],
)
def test_what_a_graph_cannot_take_is_refused_by_the_input_s_name(
    body: str, inputs: Sequence[Input], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        read(body, "application/json", *inputs)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", None),
        (b"", "text/csv"),
        (b"\xff", "text/csv"),
        (b"nothing", "application/x-npy"),
        (HUGE, "application/x-npy"),
        (b"x", "image/png"),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(body, kind, X)


def test_an_npz_is_not_unpacked_to_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros((1000, 2), np.float32))
    assert len(values(read(stream.getvalue(), "application/x-npz", X))["x"]) == 1000
    monkeypatch.setattr(payloads, "LARGEST_UNPACKED_BYTES", 1000)
    with pytest.raises(UnsupportedMediaType, match="unpacks to more than"):
        read(stream.getvalue(), "application/x-npz", X)


def test_a_row_by_itself_is_a_batch_of_one_and_null_is_no_number() -> None:
    assert fitted([1, 2], X).shape == (1, 2)
    assert np.isnan(fitted([[1, None]], X)[0, 1])
    assert fitted([2**53 + 1], KIND).tolist() == [2**53 + 1]


def body_of(kind: str, names: Sequence[str], outputs: Sequence[Any], asked: Asked | None = None) -> Any:
    found = answer(kind, asked or Asked({}), names, outputs)
    return json.loads(found.body) if kind == "application/json" else found.body.decode()


def test_one_output_is_a_list_and_several_are_an_object() -> None:
    top, both = np.array([3.5, 4]), np.array([[1, 2], [3, 4]])
    assert body_of("application/json", ["top"], [top]) == [3.5, 4]
    assert body_of("application/json", ["both", "top"], [both, top]) == {
        "both": [[1, 2], [3, 4]],
        "top": [3.5, 4],
    }
    assert body_of("text/csv", ["both", "top"], [both, top]) == "1,2,3.5\n3,4,4.0\n"
    rows = Asked({}, "rows")
    assert body_of("application/json", ["top"], [top], rows) == {"predictions": [3.5, 4]}
    assert body_of("application/jsonlines", ["both", "top"], [both, top], rows).splitlines() == [
        '{"both": [1, 2], "top": 3.5}',
        '{"both": [3, 4], "top": 4.0}',
    ]
    kserve = Asked({}, "kserve", id="7")
    assert body_of("application/json", ["top"], [np.array([3.5], np.float32)], kserve) == {
        "model_name": "model",
        "id": "7",
        "outputs": [{"name": "top", "shape": [1], "datatype": "FP32", "data": [3.5]}],
    }


def test_a_form_that_the_outputs_do_not_have_is_not_acceptable() -> None:
    maps = [{"a": 0.5, "b": 0.5}]
    for kind, names, outputs in (
        ("text/csv", ["p"], [maps]),
        ("text/csv", ["a"], [np.zeros((1, 2, 2))]),
        ("application/x-npy", ["a", "b"], [np.zeros(1), np.zeros(1)]),
        ("application/jsonlines", ["a", "b"], [np.zeros(1), np.zeros(2)]),
    ):
        with pytest.raises(NotAcceptable):
            answer(kind, Asked({}), names, outputs)
    with pytest.raises(NotAcceptable, match="image/png"):
        kind_for("image/png", "application/json")
    assert kind_for("image/png, */*", "text/csv") == "text/csv"


def test_an_output_that_is_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(BadRequest, match="gives y, and not z"):
        check_outputs(Asked({}, "kserve", ("z",)), ["y"])


class Twice:
    """A graph that doubles, and counts its calls. `spoils` makes it look at more than the row."""

    def __init__(self, spoils: bool = False, scale: float = 1) -> None:
        self.inputs = (X,)
        self.calls: list[int] = []
        self._spoils = spoils
        self._scale = scale

    def run(self, arrays: Arrays) -> list[Any]:
        x = arrays["x"]
        self.calls.append(len(x))
        if (x == 13).any():
            raise BadRequest("thirteen")
        return [(x * 2 + (len(x) if self._spoils else 0)) * self._scale]

    def example(self, rows: int, random: "np.random.Generator") -> Mapping[str, Any]:
        return {"x": random.random((rows, 2))}


def rows_of(*counts: int) -> list[Mapping[str, Any]]:
    return [{"x": np.full((count, 2), number, np.float32)} for number, count in enumerate(counts)]


def test_H07_what_waits_is_one_call_and_each_gets_its_own_rows() -> None:
    graph = Twice()
    joiner = Joiner(graph)
    graph.calls.clear()
    outcomes = joiner.run(rows_of(1, 3, 2))
    assert graph.calls == [6]
    assert [outcome[0].tolist() for outcome in outcomes if isinstance(outcome, list)] == [
        [[0, 0]],
        [[2, 2]] * 3,
        [[4, 4]] * 2,
    ]


def test_H07_a_graph_that_looks_at_other_rows_is_never_joined() -> None:
    graph = Twice(spoils=True)
    joiner = Joiner(graph)
    graph.calls.clear()
    joiner.run(rows_of(1, 2))
    assert graph.calls == [1, 2]


@pytest.mark.parametrize("scale", [1e-7, np.nan])
def test_H07_a_trial_that_says_nothing_joins_nothing(scale: float) -> None:
    """Small numbers are compared by their own size; and what is no number equals itself whatever the graph does."""
    graph = Twice(spoils=not np.isnan(scale), scale=scale)
    joiner = Joiner(graph)
    graph.calls.clear()
    joiner.run(rows_of(1, 2))
    assert graph.calls == [1, 2]


def test_H07_whole_numbers_of_csv_are_not_rounded() -> None:
    wanted = Input("id", np.dtype(np.int64), (None, 2))
    asked = read("9007199254740993,-9223372036854775807\n", "text/csv", wanted)
    assert values(asked) == {"id": [[9007199254740993, -9223372036854775807]]}
    assert values(read("1.0,2\n", "text/csv", wanted)) == {"id": [[1, 2]]}


def test_a_request_that_fails_spoils_no_other() -> None:
    joiner = Joiner(Twice())
    good, bad = {"x": np.ones((1, 2))}, {"x": np.full((1, 2), 13.0)}
    first, second, third = joiner.run([good, bad, good])
    assert isinstance(second, BadRequest)
    assert isinstance(first, list)
    assert isinstance(third, list)
    assert first[0].tolist() == third[0].tolist() == [[2, 2]]


def in_runtime(graph: str, folder: Path, requests: list[list[str | None]]) -> tuple[dict[str, Any], str]:
    """What the runtime does with a kept graph, and what it logs."""
    shutil.copy(KEPT / f"{graph}.onnx", folder / "any-name.onnx")
    return ask_in_framework("onnx", folder, requests)


@pytest.mark.parametrize(
    ("graph", "joins"),
    [("linear", True), ("two_inputs", True), ("classifier", True), ("batch_mean", False), ("fixed", False)],
)
def test_H07_graphs_answer_what_their_makers_say_alone_and_together(
    tmp_path: Path, graph: str, joins: bool
) -> None:
    kept = EXPECTED[graph]
    body = json.dumps({"inputs": kept["inputs"]})
    found, log = in_runtime(graph, tmp_path, [[body, "application/json", None]] * 3)
    outputs = kept["outputs"]
    wanted = next(iter(outputs.values())) if len(outputs) == 1 else outputs
    for status, kind, text in [*found["alone"], *found["together"]]:
        assert (status, kind) == (200, "application/json"), text
        assert flat(json.loads(text)) == pytest.approx(flat(wanted), rel=1e-5, abs=1e-6)
    assert ("predicted together" in log) is joins


def flat(value: Any) -> list[Any]:
    """The numbers in it; words as their letters."""
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in flat(value[key])]
    if isinstance(value, list):
        return [each for item in value for each in flat(item)]
    return [float(each) for each in value.encode()] if isinstance(value, str) else [value]


def test_an_archive_with_several_graphs_says_what_to_call_the_one_to_serve(tmp_path: Path) -> None:
    shutil.copy(KEPT / "fixed.onnx", tmp_path / "other.onnx")
    found, _ = in_runtime("linear", tmp_path, [])
    assert "any-name.onnx, other.onnx: call the one to serve model.onnx" in found["refused"]
