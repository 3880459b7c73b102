"""Scripts: which is found, what they may define, and what they get and give."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clary.runtimes import encoding
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, LoadError
from clary.runtimes.handler import Answers, Defaults, find_script, load_script, words_of

DEFAULTS = Defaults("the framework", lambda data, model: model(data))
MODEL = "def model_fn(model_dir): return lambda data: data * 2\n"


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Scripts change what can be imported; the next test finds it as it was."""
    path, known = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(known):
        if name in ("inference", "serve", "helper"):
            del sys.modules[name]


def write(folder: Path, text: str, name: str = "inference.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def handlers(model_dir: Path, text: str, **environment: str) -> Answers:
    write(model_dir / "code", text)
    script = find_script(model_dir, environment)
    assert script is not None
    return load_script(script, model_dir, DEFAULTS)


def ask(
    answers: Answers,
    body: bytes,
    content_type: str | None = "application/json",
    accept: str | None = None,
    **headers: str,
) -> InvocationResponse:
    head = InvocationHead(content_type, accept, "", tuple(headers.items()))
    return answers.answer(InvocationRequest(head, body))


def test_H06_what_a_script_leaves_out_is_the_framework_s(tmp_path: Path) -> None:
    answer = ask(handlers(tmp_path, MODEL), b"[[1, 2], [3, 4]]")
    assert (answer.status, answer.content_type, json.loads(answer.body)) == (
        200,
        "application/json",
        [[2, 4], [6, 8]],
    )


@pytest.mark.parametrize("kind", ["application/json", "text/csv", "application/x-npy"])
def test_H06_the_defaults_read_what_they_write(kind: str) -> None:
    values = np.array([[1.5, -2.0], [3.25, 1e-9]])
    body = encoding.encode(values, kind)
    assert np.array_equal(encoding.decode(body, f"{kind}; charset=utf-8"), values)


def test_csv_of_one_dimension_is_a_value_a_line() -> None:
    assert encoding.encode(np.array([1.5, 2.0]), "text/csv") == "1.5\n2.0\n"


def test_npz_is_a_sparse_matrix() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    buffer = io.BytesIO()
    sparse.save_npz(buffer, sparse.csr_matrix([[0.0, 2.0]]))
    assert encoding.decode(buffer.getvalue(), "application/x-npz").toarray().tolist() == [[0.0, 2.0]]


def test_H06_handlers_get_text_for_json_and_csv_and_bytes_for_the_rest(tmp_path: Path) -> None:
    told = (
        MODEL + "def transform_fn(model, data, content_type, accept):\n"
        "    return f'{type(data).__name__} {content_type} {accept}', 'text/plain'\n"
    )
    answers = handlers(tmp_path, told)
    assert ask(answers, b"1", "text/csv", "*/*").body == b"str text/csv application/json"
    assert ask(answers, b"1", None).body == b"str application/json application/json"
    assert ask(answers, b"1", "image/png", "text/x").body == b"bytes image/png text/x"
    assert ask(answers, b"1").content_type == "text/plain"


def test_H06_the_default_accept_is_the_environment_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
    answer = ask(handlers(tmp_path, MODEL), b"[1, 2]")
    assert (answer.content_type, answer.body) == ("text/csv", b"2\n4\n")


def test_H06_a_handler_that_takes_a_context_gets_one(tmp_path: Path) -> None:
    text = (
        "def model_fn(model_dir, context): return context.system_properties['model_dir']\n"
        "def input_fn(data, content_type, context): return context.get_request_header(0, 'X-Amzn-Trace')\n"
        "def predict_fn(data, model): return [model, data]\n"
        "def output_fn(prediction, accept, context):\n"
        "    context.set_response_content_type(0, 'text/mine')\n"
        "    return prediction\n"
    )
    answer = ask(handlers(tmp_path, text), b"", **{"x-amzn-trace": "t"})
    assert (answer.content_type, json.loads(answer.body)) == ("text/mine", [str(tmp_path), "t"])


def test_H06_a_handler_that_raises_is_500_with_its_words_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        MODEL
        + "def predict_fn(data, model):\n    if data[0] < 0: raise KeyError('no negative')\n    return data\n"
    )
    answers = handlers(tmp_path, text)
    refused = ask(answers, b"[-1]")
    assert refused.status == 500
    assert refused.body.startswith(b"'no negative'\nTraceback")
    assert "KeyError: 'no negative'" in capsys.readouterr().err
    assert ask(answers, b"[1]").status == 200


def test_a_type_nobody_reads_is_500_and_says_what_to_do(tmp_path: Path) -> None:
    answer = ask(handlers(tmp_path, MODEL), b"x", "image/png")
    assert answer.status == 500
    assert b"Content type image/png is not supported" in answer.body
    assert b"implement input_fn" in answer.body


def test_an_answer_that_is_no_body_is_500_and_says_so(tmp_path: Path) -> None:
    answers = handlers(tmp_path, MODEL + "def output_fn(prediction, accept): return object()\n")
    assert b"return str or bytes" in ask(answers, b"[1]").body


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def input_fn(data, kind): return data\n", "has no model_fn"),
        (
            MODEL + "def transform_fn(m, d, c, a): pass\ndef predict_fn(d, m): pass\n",
            "transform_fn together with predict_fn",
        ),
    ],
)
def test_H06_a_script_that_cannot_serve_says_why(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        handlers(tmp_path, text)


def test_the_source_directory_comes_before_the_model_s_code(tmp_path: Path) -> None:
    write(tmp_path / "model" / "code", MODEL)
    source = write(tmp_path / "source", MODEL)
    environment = {"SAGEMAKER_SUBMIT_DIRECTORY": str(source)}
    found = find_script(tmp_path / "model", environment)
    assert found is not None
    assert found.path == source / "inference.py"


def test_a_program_may_lie_deeper_and_imports_what_lies_beside_it_and_above(tmp_path: Path) -> None:
    code = write(tmp_path / "code", "import helper\n" + MODEL, "deep/serve.py")
    write(code, "", "helper.py")
    script = find_script(tmp_path, {"SAGEMAKER_PROGRAM": "deep/serve.py"})
    assert script is not None
    assert ask(load_script(script, tmp_path, DEFAULTS), b"[2]").body == b"[4]"


def test_a_program_that_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    write(tmp_path / "code", "", "other.py")
    with pytest.raises(LoadError, match=r"SAGEMAKER_PROGRAM is serve\.py, .* there are other\.py"):
        find_script(tmp_path, {"SAGEMAKER_PROGRAM": "serve.py"})


def test_a_model_without_code_has_no_script(tmp_path: Path) -> None:
    assert find_script(tmp_path, {}) is None


def test_the_usual_causes_come_with_what_helps() -> None:
    assert "requirements.txt" in words_of(ModuleNotFoundError("No module named 'x'"))
    assert "free some space" in words_of(OSError(28, "No space left on device"))


def test_H12_a_script_opens_and_closes_sessions_by_headers_of_its_answer(tmp_path: Path) -> None:
    answers = handlers(
        tmp_path,
        MODEL + "NEW = 's1; Expires=2030-01-01T00:00:00Z'\n"
        "def input_fn(data, content_type, context):\n"
        "    if context.get_request_header(0, 'X-Amzn-SageMaker-Session-Id') == 'NEW_SESSION':\n"
        "        context.set_response_header(0, 'x-amzn-sagemaker-new-session-id', NEW)\n"
        "    else:\n"
        "        context.set_response_header(0, 'X-Amzn-SageMaker-Closed-Session-Id', 's1')\n"
        "        context.set_response_header(0, 'X-Other', 'stays here')\n"
        "    return 1\n",
    )
    opened = ask(answers, b"1", **{"x-amzn-sagemaker-session-id": "NEW_SESSION"})
    assert opened.session_fields == (("X-Amzn-SageMaker-New-Session-Id", "s1; Expires=2030-01-01T00:00:00Z"),)
    closed = ask(answers, b"1", **{"x-amzn-sagemaker-session-id": "s1"})
    assert closed.session_fields == (("X-Amzn-SageMaker-Closed-Session-Id", "s1"),)


def test_what_a_script_sets_or_raises_can_always_be_sent(tmp_path: Path) -> None:
    text = (
        MODEL + "def transform_fn(model, data, content_type, accept, context):\n"
        "    if data == 'raise': raise ValueError('\\udcff')\n"
        "    context.set_response_header(0, 'X-Amzn-SageMaker-Custom-Attributes', 5)\n"
        "    return 'x'\n"
    )
    answers = handlers(tmp_path, text)
    assert ask(answers, b"1", "text/csv").custom_attributes == "5"
    assert ask(answers, b"raise", "text/csv").status == 500
