"""Scripts of the user's: `model_fn`, `input_fn`, `predict_fn`, `output_fn` or `transform_fn`, as the inference toolkit
runs them.

A script is `SAGEMAKER_PROGRAM` (`inference.py` without it), looked for in `SAGEMAKER_SUBMIT_DIRECTORY` and in `code/`
of the model. What it does not define is the framework's default. Whatever a script raises while it answers is status
500 with the words and the stack as the body, as the toolkit has it, and the same in the log.

Everything here runs in a worker (`clary.runtimes.worker`), never in the process that listens.
"""

import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from clary.runtimes import encoding
from clary.runtimes.contract import (
    InvocationHead,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
    Model,
)

DEFAULT_PROGRAM = "inference.py"
Function = Callable[..., Any]
_STEPS = ("input_fn", "predict_fn", "output_fn")
MOST_TOGETHER = 256
"""Requests a worker takes at once where the framework can answer several together."""

_NO_LIMITS = Limits(1 << 62)
_SESSION_FIELDS = ("X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id")
_MOST_NAMES = 5


class Answers(Protocol):
    """What a worker runs: one request at a time."""

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        """Never raises."""


@runtime_checkable
class AnswersTogether(Protocol):
    """What a worker runs that may take several of the waiting requests at once."""

    most_together: int

    def answer_all(self, requests: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        """One answer for each, in their order. Never raises."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a framework does where a script says nothing. `model_fn` None: the script must have one.

    `together` makes of the script's model and the usual Accept one that answers several requests in one call, for
    scripts that say how to load their model and nothing else. `begin` is called in each worker before any code of the
    user's. `failure` answers for what a handler raises, where that is not 500 with words and stack.
    """

    framework: str
    predict_fn: Function
    model_fn: Function | None = None
    input_fn: Function = encoding.decode
    output_fn: Function = encoding.encode
    together: Callable[[Any, str, Limits], Model] | None = None
    begin: Callable[[], None] | None = None
    failure: Callable[[Exception], InvocationResponse] | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """Where a script lies, and the folders its imports are looked for in."""

    path: Path
    folders: tuple[Path, ...]

    @property
    def module_name(self) -> str:
        return self.path.stem


def find_script(model_dir: Path, environment: Mapping[str, str]) -> Script | None:
    """The model's script; None when it has none. Raises `LoadError` for one that is named and not there."""
    program = environment.get("SAGEMAKER_PROGRAM", "")
    submitted = environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    folders = [Path(submitted)] if submitted and "://" not in submitted else []
    if (model_dir / "code") not in folders:
        folders.append(model_dir / "code")
    name = program or DEFAULT_PROGRAM
    name = name if name.endswith(".py") else f"{name}.py"
    for folder in folders:
        path = folder / name
        if path.is_file():
            return Script(path, tuple(dict.fromkeys((folder, path.parent, *folders))))
    if program:
        raise LoadError(
            f"SAGEMAKER_PROGRAM is {program}, and there is no such file in the source directory or the model's code/"
            f"; there are {_names(folders)}"
        )
    return None


def load_script(
    script: Script, model_dir: Path, defaults: Defaults, limits: Limits = _NO_LIMITS
) -> "Answers":
    """Runs the script and its `model_fn`. Raises `LoadError` for what only its author can put right."""
    if defaults.begin is not None:
        defaults.begin()
    sys.path[:0] = [str(folder) for folder in script.folders]
    module = _run(script)
    functions = {
        name: function for name in (*_STEPS, "transform_fn") if (function := _function(module, name))
    }
    if "transform_fn" in functions and len(functions) > 1:
        raise LoadError(
            f"{script.path.name} has transform_fn together with "
            f"{', '.join(name for name in _STEPS if name in functions)}: "
            "keep transform_fn, or the others without it"
        )
    model_fn = _function(module, "model_fn") or defaults.model_fn
    if model_fn is None:
        raise LoadError(
            f"{script.path.name} has no model_fn, and {defaults.framework} has no default for it: "
            "define model_fn(model_dir) that reads the model and returns it"
        )
    model = _call(model_fn, str(model_dir), context=Context(str(model_dir)))
    if not functions and defaults.together is not None:
        return Together(defaults.together(model, default_accept(), limits))
    return Handlers(str(model_dir), model, functions, defaults)


def default_accept() -> str:
    """What an answer is written in for those that accept anything."""
    return os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or encoding.JSON


def words_of(error: BaseException) -> str:
    """What went wrong, and what helps against the usual causes."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"{text}; put a requirements.txt that names its package beside the script"
    if isinstance(error, OSError) and error.errno == 28:
        return f"{text}; the disk is full: free some space, then try again"
    return text


class Context:
    """What handlers get that take one more parameter: the toolkit's, as far as scripts use it."""

    def __init__(self, model_dir: str, head: InvocationHead | None = None) -> None:
        self.system_properties: dict[str, object] = {"model_dir": model_dir, "gpu_id": None}
        self.model_name = "model"
        self.response_content_type = ""
        self.custom_attributes = ""
        self.session_fields: dict[str, str] = {}
        self._headers = dict(head.headers) if head else {}

    def get_request_header(self, index: int, key: str) -> str | None:
        return self._headers.get(key.lower())

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return dict(self._headers)

    def set_response_content_type(self, index: int, value: str) -> None:
        self.response_content_type = value

    def set_response_header(self, index: int, key: str, value: str) -> None:
        """Of an answer's headers only these leave an endpoint."""
        if key.lower() == "x-amzn-sagemaker-custom-attributes":
            self.custom_attributes = str(value)
        elif key.lower() == "content-type":
            self.response_content_type = value
        for name in _SESSION_FIELDS:
            if key.lower() == name.lower():
                self.session_fields[name] = str(value)


class Together:
    """A script's model that the framework answers for, with what waits in one call. See `AnswersTogether`."""

    most_together = MOST_TOGETHER

    def __init__(self, model: Model) -> None:
        self._model = model

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        return self.answer_all([request])[0]

    def answer_all(self, requests: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        try:
            return self._model.predict(requests)
        except Exception as error:  # noqa: BLE001  (a user's model: anything may come)
            if len(requests) > 1:
                return [self.answer(request) for request in requests]
            return [failure(error)]


def failure(error: Exception) -> InvocationResponse:
    """What a handler raised, as the toolkit answers it; the same goes to the log."""
    stack = "".join(traceback.format_exception(error))
    print(f"invocation failed: {stack}", file=sys.stderr, flush=True)
    return InvocationResponse(
        500, "text/plain; charset=utf-8", f"{error}\n{stack}".encode("utf-8", "replace")
    )


class Handlers:
    """A script with its model."""

    def __init__(
        self, model_dir: str, model: Any, functions: Mapping[str, Function], defaults: Defaults
    ) -> None:
        self._model_dir = model_dir
        self._model = model
        self._accept = default_accept()
        self._failure = defaults.failure
        self._transform = functions.get("transform_fn")
        self._input = functions.get("input_fn", defaults.input_fn)
        self._predict = functions.get("predict_fn", defaults.predict_fn)
        self._output = functions.get("output_fn", defaults.output_fn)

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        """One answer, whatever the script does short of ending its process."""
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001  (a user's code: anything may come)
            answer = failure(error)
            return answer if self._failure is None else self._failure(error)

    def _answer(self, request: InvocationRequest) -> InvocationResponse:
        head = request.head
        content_type = head.content_type or encoding.JSON
        accept = self._accept if head.accept in (None, "", "*/*") else str(head.accept)
        data: str | bytes = request.body
        if encoding.plain(content_type) in encoding.TEXT:
            data = request.body.decode()
        context = Context(self._model_dir, head)
        if self._transform is not None:
            result = _call(self._transform, self._model, data, content_type, accept, context=context)
        else:
            given = _call(self._input, data, content_type, context=context)
            predicted = _call(self._predict, given, self._model, context=context)
            result = _call(self._output, predicted, accept, context=context)
        body, kind = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
        kind = str(kind or context.response_content_type or accept)
        fields = tuple(context.session_fields.items())
        return InvocationResponse(200, kind, _body(body), context.custom_attributes, fields)


def _run(script: Script) -> ModuleType:
    """Imports the script from its path: no module of its name that is installed can take its place."""
    spec = importlib.util.spec_from_file_location(script.module_name, script.path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{script.path.name} is no Python script")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.module_name] = module  # pickles name classes of the script by it
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str) -> Function | None:
    found = getattr(module, name, None)
    return found if callable(found) else None


def _call(function: Function, *arguments: Any, context: Context) -> Any:
    return function(*arguments, context) if _takes(function, len(arguments) + 1) else function(*arguments)


def _takes(function: Function, count: int) -> bool:
    """Whether it has room for so many positional arguments; asked once for each function."""
    known = _ROOM.get(function)
    if known is None:
        try:
            kinds = [each.kind for each in inspect.signature(function).parameters.values()]
        except (TypeError, ValueError):
            kinds = []  # of a builtin: no context for it
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        known = _ROOM[function] = sum(kind in positional for kind in kinds)
    return known >= count


_ROOM: dict[Function, int] = {}


def _body(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict | list | int | float) or value is None:
        return json.dumps(value).encode()
    raise TypeError(f"the script's answer is of type {type(value).__name__}: return str or bytes")


def _names(folders: list[Path]) -> str:
    names = sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    return ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "") or "no files at all"
