"""Run by the Python of the PyTorch environment: each `check_…` is one test of the runtime, told as JSON by its name.

python pytorch_checks.py FOLDER
"""

import io
import json
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pytorch_models
from clary.runtimes import encoding
from clary.runtimes.contract import (
    InvocationHead,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
)
from clary.runtimes.frameworks.pytorch import batched, mar, torchserve
from clary.runtimes.frameworks.pytorch.artefacts import load_model
from clary.runtimes.frameworks.pytorch.batched import BatchedModel
from clary.runtimes.frameworks.pytorch.handlers import input_fn, output_fn, predict_fn
from clary.runtimes.frameworks.pytorch.model import load
from clary.runtimes.heads import encode_response

Found = dict[str, Any]
BODIES: list[tuple[str, str]] = [
    ("application/json", "[[1, 2.5, -3, 4, 5, 6, 7]]"),
    ("application/json", "[[1, 2, 3, 4, 5, 6, 7], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]]"),
    ("application/json", "[1, 2, 3, 4, 5, 6, 7]"),
    ("application/json", "[true, 2, 3, 4, 5, 6, 7]"),
    ("application/json", "[]"),
    ("application/json", "[[]]"),
    ("application/json", "[[1, 2], [3]]"),
    ("application/json", '["a"]'),
    ("application/json", "[[null, 1, 2, 3, 4, 5, 6]]"),
    ("application/json", '{"a": 1}'),
    ("application/json", "no json"),
    ("application/json", "[[[1, 2, 3, 4, 5, 6, 7]]]"),
    ("application/json; charset=utf-8", "[[1e300, 2, 3, 4, 5, 6, 7]]"),
    ("text/csv", "1,2,3,4,5,6,7"),
    ("text/csv", "1,2,3,4,5,6,7\n7,6,5,4,3,2,1\n"),
    ("text/csv", "1,2,3\n7,6\n"),
    ("text/csv", "1,,3,4,5,6,7\n"),
    ("text/csv", "# a remark\n1,2,3,4,5,6,7\n"),
    ("text/csv", ""),
    ("image/png", "x"),
]
ACCEPTS = (None, "text/csv", "application/x-npy", "text/html", "text/html, application/json;q=0.5")


def request(
    body: str | bytes, kind: str = "application/json", accept: str | None = None
) -> InvocationRequest:
    head = InvocationHead(kind, accept, "", ())
    return InvocationRequest(head, body.encode() if isinstance(body, str) else body)


def serve(model: Any) -> BatchedModel:
    return BatchedModel(model, encoding.JSON, Limits(1 << 20))


def by_the_handlers(model: Any, asked: InvocationRequest) -> tuple[int, bytes]:
    """What the toolkit's steps give, one after the other."""
    head = asked.head
    kind = head.content_type or encoding.JSON
    data: Any = asked.body.decode() if encoding.plain(kind) in encoding.TEXT else asked.body
    try:
        body, _ = output_fn(predict_fn(input_fn(data, kind), model), head.accept or encoding.JSON)
    except Exception:  # noqa: BLE001
        return 500, b""
    return 200, body.encode() if isinstance(body, str) else body


def answered(response: InvocationResponse) -> tuple[int, bytes]:
    return response.status, response.body if response.status == 200 else b""


def check_every_body_is_answered_as_the_handlers_would(folder: Path) -> None:
    model = load_model(folder / "one")
    for accept in ACCEPTS:
        for kind, body in BODIES:
            asked = request(body, kind, accept)
            found, wanted = answered(serve(model).predict([asked])[0]), by_the_handlers(model, asked)
            assert found == wanted, (kind, body, accept, found, wanted)


def check_joined_answers_are_those_of_single_calls(folder: Path) -> None:
    model, alone = serve(load_model(folder / "one")), load_model(folder / "one")
    asked = [request(body, kind) for kind, body in BODIES]
    for _ in range(2 * batched.PROOFS):
        for one, response in zip(asked * 3, model.predict(asked * 3)):
            status, body = by_the_handlers(alone, one)
            assert response.status == status
            if status == 200:
                assert np.allclose(json.loads(response.body), json.loads(body), rtol=1e-4, equal_nan=True)
    trust = model._trust[("rows", 7)]
    assert trust.proofs == batched.PROOFS
    assert not trust.refused


def check_rows_that_depend_on_each_other_are_never_joined(folder: Path) -> None:
    calls = []

    def model(rows: Any) -> Any:
        calls.append(len(rows))
        return rows / rows.sum()

    served = serve(model)
    asked = [request(f"[[{number}.0, 1.0]]") for number in range(1, 5)]
    for _ in range(3):
        for number, response in enumerate(served.predict(asked), 1):
            assert json.loads(response.body) == [[number / (number + 1), 1 / (number + 1)]] or np.allclose(
                json.loads(response.body), [[number / (number + 1), 1 / (number + 1)]]
            )
    assert calls == [4] + [1] * 12  # joined once, to see that it is different


def check_a_model_for_one_row_at_a_time_is_called_so(folder: Path) -> None:
    def model(rows: Any) -> Any:
        if len(rows) != 1:
            raise RuntimeError("one row, please")
        return rows * 2

    served = serve(model)
    for _ in range(2):
        responses = served.predict([request("[[1.0]]"), request("[[2.0]]"), request("[[3.0], [4.0]]")])
        assert [response.status for response in responses] == [200, 200, 500]
        assert [response.body for response in responses[:2]] == [b"[[2.0]]", b"[[4.0]]"]


def check_a_model_that_changes_its_mind_is_noticed(folder: Path) -> None:
    calls = []

    def model(rows: Any) -> Any:
        calls.append(len(rows))
        return rows - rows.mean() if len(calls) > 100 else rows

    served = serve(model)
    asked = [request("[[1.0, 2.0]]"), request("[[3.0, 4.0]]")]
    for _ in range(batched.CHECK_EVERY + 10):
        last = served.predict(asked)
    assert json.loads(last[0].body) == [[-0.5, 0.5]]


def check_numbers_keep_their_type_in_npy(folder: Path) -> None:
    kinds = []

    def model(rows: Any) -> Any:
        kinds.append(rows.dtype)
        return rows

    served = serve(model)
    for kind in (np.int64, np.float64, np.float32):
        buffer = io.BytesIO()
        np.save(buffer, np.ones((2, 3), dtype=kind))
        responses = served.predict([request(buffer.getvalue(), "application/x-npy")] * 2)
        assert [json.loads(response.body) for response in responses] == [np.ones((2, 3)).tolist()] * 2
    assert set(kinds) == {torch.int64, torch.float64, torch.float32}


def check_an_exported_program_answers_too(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    (folder / "exported").mkdir()
    (folder / "exported" / "model.pt2").write_bytes((folder / "model.pt2").read_bytes())
    model = load(folder / "exported", {}, 2)
    assert isinstance(model, BatchedModel)
    rows = [request(json.dumps([row])) for row in expected["rows"]]
    responses = model.predict(rows)
    assert np.allclose([json.loads(each.body)[0] for each in responses], expected["answers"], rtol=1e-4)


def check_what_cannot_be_served_says_what_to_do(folder: Path) -> None:
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "weights": ({"a.pth": (folder / "weights.pth").read_bytes()}, "load_state_dict"),
        "two": ({"a.pt": b"", "b.pth": b""}, "call the one to serve model.pt"),
        "old": ({"a.pt": b"\x80\x02}q\x00."}, "written by torch.save"),
        "onnx": ({"model.safetensors": b""}, "has no model.pt"),
        "empty.mar": ({"a.mar": b""}, "could not be unpacked"),
        "two.mar": ({"a.mar": b"", "b.mar": b""}, "more than one"),
        "out.mar": ({"a.mar": zipped({"../x.py": b""})}, "leads out of the archive"),
        "none.mar": ({"a.mar": zipped({"x.py": b""})}, "torch-model-archiver"),
        "own.mar": ({"a.mar": archive_of("image_classifier")}, "needs torchvision"),
    }
    for name, (files, words) in cases.items():
        place = folder / name
        place.mkdir()
        for file, content in files.items():
            (place / file).write_bytes(content)
        try:
            load(place, {}, 1)
        except LoadError as error:
            assert words in str(error), (name, str(error))
        else:
            raise AssertionError(name)


def check_a_bomb_is_not_unpacked(folder: Path) -> None:
    place = folder / "bomb"
    place.mkdir()
    (place / "a.mar").write_bytes(zipped({"zeros": bytes(mar.RATIO_FREE_BYTES + 1)}))
    try:
        mar.find_archive(place)
    except LoadError as error:
        assert "unpacks to more than" in str(error)
    else:
        raise AssertionError("it was")


def check_what_was_unpacked_goes_with_the_archive(folder: Path) -> None:
    place = folder / "unpacked"
    place.mkdir()
    (place / "a.mar").write_bytes(archive_of("h", **{"h.py": b""}))
    archive = mar.find_archive(place)
    assert archive is not None
    directory = archive.directory
    assert (directory / "h.py").is_file()
    del archive
    assert not directory.exists()


def check_a_handler_that_answers_too_little_is_503_for_all(folder: Path) -> None:
    service = service_of(folder, "short", b"def handle(data, context):\n    return data and data[1:]\n")
    responses = service.answer_all([request("[1]"), request("[2]")])
    assert [response.status for response in responses] == [503, 503]
    assert b"mismatched" in responses[0].body


def check_a_function_gets_text_json_and_bytes_and_sets_its_type(folder: Path) -> None:
    code = (
        b"seen = []\n"
        b"def run(data, context):\n"
        b"    if data is None: return seen.append('begun')\n"
        b"    context.set_response_content_type(0, 'text/x-own')\n"
        b"    context.set_response_status(201, 'made', 0)\n"
        b"    return [f\"{seen} {row['body']!r} {context.get_request_header(0, 'X-One')}\" for row in data]\n"
    )
    service = service_of(folder, "function", code, handler="function:run")
    head = InvocationHead("text/plain", None, "", (("x-one", "1"),))
    answer = service.answer(InvocationRequest(head, b"word"))
    assert (answer.status, answer.content_type, answer.body) == (201, "text/x-own", b"['begun'] 'word' 1")
    assert service.answer(request("[1]")).body == b"['begun'] [1] None"
    assert service.answer(request(b"\xff", "image/png")).body == b"['begun'] b'\\xff' None"


def check_a_status_of_any_kind_is_answered(folder: Path) -> None:
    code = (
        b"from ts.utils.util import PredictionException\n"
        b"def handle(data, context):\n"
        b"    if data is None: return\n"
        b"    told = data[0]['body']\n"
        b"    if told[0]: raise PredictionException('no', told[1])\n"
        b"    context.set_response_status(told[1])\n"
        b"    return ['body']\n"
    )
    service = service_of(folder, "statuses", code)
    for told, status, body in (
        ("[0, 299]", 299, b"body"),
        ("[0, 204]", 204, b""),
        ("[0, 7]", 500, b"body"),
        ('[1, "x"]', 500, b"no"),
        ("[1, 599]", 599, b"no"),
    ):
        answer = service.answer(request(told))
        assert answer.status == status, answer
        assert (body in answer.body) if body else not answer.body, answer
        assert encode_response(answer, keep_alive=True).startswith(b"HTTP/1.1 %d " % status)


def check_settings_go_before_the_archive_s(folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set" / "rows.mar").write_bytes((folder / "rows.mar").read_bytes())
    archive = mar.find_archive(folder / "set")
    assert archive is not None
    assert torchserve.settings_for(archive, {}, 1).batch_size == 8
    asked = {"SAGEMAKER_TS_BATCH_SIZE": "3", "SAGEMAKER_TS_RESPONSE_TIMEOUT": "7"}
    found = torchserve.settings_for(archive, asked, 1)
    assert (found.batch_size, found.timeout_s, found.workers) == (3, 7, 1)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_of(handler: str, **files: bytes) -> bytes:
    manifest = {"model": {"modelName": "m", "handler": handler}}
    return zipped({"MAR-INF/MANIFEST.json": json.dumps(manifest).encode(), **files})


def service_of(folder: Path, name: str, code: bytes, handler: str = "") -> torchserve.Service:
    place = folder / f"service-{name}"
    place.mkdir()
    (place / "a.mar").write_bytes(archive_of(handler or name, **{f"{name}.py": code}))
    archive = mar.find_archive(place)
    assert archive is not None
    return torchserve.load_service(archive, torchserve.settings_for(archive, {}, 1))


def main(folder: Path) -> dict[str, str]:
    (folder / "expected.json").write_text(json.dumps(pytorch_models.make(folder)))
    (folder / "one").mkdir()
    (folder / "one" / "model.pt").write_bytes((folder / "model.pt").read_bytes())
    checks: dict[str, Callable[[Path], None]] = {
        name.removeprefix("check_"): value for name, value in globals().items() if name.startswith("check_")
    }
    outcomes = {}
    for name, check in checks.items():
        try:
            check(folder)
            outcomes[name] = "ok"
        except Exception:  # noqa: BLE001
            outcomes[name] = traceback.format_exc()
    return outcomes


if __name__ == "__main__":
    _outcomes = main(Path(sys.argv[1]))
    print(json.dumps(_outcomes), flush=True)
