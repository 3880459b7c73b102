"""TorchServe's handler contract: a class with `initialize` and `handle`, or a function, over batches of requests.

Handlers run in workers like scripts. A worker takes what waits, up to the archive's `batchSize`, and does not wait for
more: `maxBatchDelay` bounds a wait that is never made. Statuses and words are TorchServe's: 503 for a handler that
raises or answers with another number of items than it was given, and what `PredictionException` says.

The `ts` package that handlers import comes with Clary (`provided/`), as far as handlers use it; an installed
torchserve goes before it. TorchServe's own handlers for pictures and texts need torchvision or torchtext and are
refused by name. Its management interface is not there: a model is what its endpoint says it is.
"""

import importlib
import json
import logging
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from clary.runtimes import encoding
from clary.runtimes.contract import InvocationRequest, InvocationResponse, Limits, LoadError
from clary.runtimes.frameworks.pytorch.mar import Archive, find_archive
from clary.runtimes.frameworks.pytorch.threads import use_threads
from clary.runtimes.scripts import payload_limit
from clary.runtimes.workers import ScriptedModel, settings_of

__all__ = ["Archive", "find_archive", "serve", "settings_for"]

PROVIDED = Path(__file__).parent / "provided"
OWN_HANDLERS = {
    "image_classifier": "torchvision",
    "image_segmenter": "torchvision",
    "object_detector": "torchvision",
    "text_classifier": "torchtext",
    "densenet_handler": "torchvision",
    "vision_handler": "torchvision",
    "text_handler": "torchtext",
}

_WITHOUT_BODY = (204, 205, 304)

log = logging.getLogger(__name__)

Entry = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Settings:
    workers: int
    timeout_s: float
    batch_size: int
    limits: Limits
    model_config: Mapping[str, Any]  # the archive's configFile


def settings_for(archive: Archive, environment: Mapping[str, str], vcpus: int) -> Settings:
    """SAGEMAKER_TS_* go before the archive's configFile. Raises `LoadError`."""
    config = _model_config(archive)
    count, timeout_s = settings_of(environment, vcpus)

    def number(variable: str, key: str, default: float) -> int:
        value = environment.get(f"SAGEMAKER_TS_{variable}") or config.get(key) or default
        try:
            found = int(value)
        except (TypeError, ValueError):
            found = 0
        if found < 1:
            raise LoadError(
                f"SAGEMAKER_TS_{variable}, or {key} in the archive, is {value!r}: give a whole number"
            )
        return found

    least = number("MIN_WORKERS", "minWorkers", count)
    return Settings(
        workers=max(least, number("MAX_WORKERS", "maxWorkers", least)),
        timeout_s=number("RESPONSE_TIMEOUT", "responseTimeout", timeout_s),
        batch_size=number("BATCH_SIZE", "batchSize", 1),
        limits=Limits(payload_limit(environment), "SINGLE_RECORD"),
        model_config=config,
    )


def serve(archive: Archive, settings: Settings, threads: int) -> ScriptedModel:
    """Raises `LoadError`."""
    handler = str(archive.model["handler"])
    if handler in OWN_HANDLERS:
        raise LoadError(
            f"{archive.name} names TorchServe's own handler {handler}, which needs {OWN_HANDLERS[handler]}: give the "
            "archive a handler of its own that derives from ts.torch_handler.base_handler.BaseHandler"
        )
    log.info("%s: handler %s, batches of up to %d requests", archive.name, handler, settings.batch_size)
    load = partial(load_service, archive, settings, threads)
    return ScriptedModel(load, settings.workers, settings.timeout_s, settings.limits)


def load_service(archive: Archive, settings: Settings, threads: int = 1) -> "Service":
    """In the worker: imports the handler and has it load its model."""
    use_threads(threads)
    sys.path.insert(0, str(archive.directory))
    sys.path.append(str(PROVIDED))
    context = importlib.import_module("ts.context").Context(
        str(archive.model.get("modelName") or "model"),
        str(archive.directory),
        dict(archive.manifest),
        settings.batch_size,
        None,
        "clary",
    )
    context.model_yaml_config = dict(settings.model_config)
    context.metrics = importlib.import_module("ts.metrics.metrics_store").MetricsStore()
    entry, initialize = _entry_of(str(archive.model["handler"]))
    initialize(context)
    return Service(entry, context, settings.batch_size)


class Service:
    """A handler with its model. See `handler.AnswersTogether`."""

    def __init__(self, entry: Entry, context: Any, batch_size: int) -> None:
        self.most_together = batch_size
        self._entry = entry
        self._context = context
        self._processor = importlib.import_module("ts.context").RequestProcessor
        self._known_error = importlib.import_module("ts.utils.util").PredictionException

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        return self.answer_all([request])[0]

    def answer_all(self, requests: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        self._context.request_ids = {place: str(uuid.uuid4()) for place in range(len(requests))}
        self._context.request_processor = [self._processor(dict(head.headers)) for head, _ in requests]
        try:
            result = self._entry([{"body": _value(request)} for request in requests], self._context)
        except MemoryError:
            return [_refusal(507, "Out of resources")] * len(requests)
        except Exception as error:
            log.error("invocation failed: %s: %s", type(error).__name__, error, exc_info=error)
            if isinstance(error, self._known_error):
                return [_refusal(_status(error.error_code), str(error.message))] * len(requests)
            return [_refusal(503, f"Prediction failed: {type(error).__name__}: {error}")] * len(requests)
        if not isinstance(result, list):
            return [_refusal(503, f"Invalid model predict output: {type(result).__name__}")] * len(requests)
        if len(result) != len(requests):
            words = f"number of batch response mismatched: {len(result)} for {len(requests)} requests"
            return [_refusal(503, words)] * len(requests)
        return [self._answer(place, value) for place, value in enumerate(result)]

    def _answer(self, place: int, value: Any) -> InvocationResponse:
        try:
            body, usual = _body(value)
        except (TypeError, ValueError) as error:
            return _refusal(503, f"Unsupported model output data type: {error}")
        status, _ = self._context.get_response_status(place)
        kind = self._context.get_response_content_type(place) or usual
        fields = {name.lower(): str(text) for name, text in self._context.get_response_headers(place).items()}
        custom = fields.get("x-amzn-sagemaker-custom-attributes", "")
        status = _status(status or 200)
        if status in _WITHOUT_BODY:
            return InvocationResponse(status, "", b"", str(custom))
        return InvocationResponse(status, str(kind), body, custom)


def _entry_of(handler: str) -> tuple[Entry, Callable[[Any], Any]]:
    """What answers, and what is called first. Raises `LoadError`."""
    name, _, function = handler.partition(":")
    name = name.removesuffix(".py").rpartition("/")[2]
    module = _import(name)
    if (found := getattr(module, function or "handle", None)) is not None:
        return found, lambda context: found(None, context)
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]
    kinds = [kind for kind in kinds if callable(getattr(kind, "handle", None))]
    if function or len(kinds) != 1:
        names = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise LoadError(
            f"the handler {handler} needs a function {function or 'handle'}(data, context), or one class with "
            f"initialize and handle; classes with handle: {names}"
        )
    service: Any = kinds[0]()
    return service.handle, service.initialize


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    try:
        return importlib.import_module(f"ts.torch_handler.{name}")
    except ModuleNotFoundError:
        raise LoadError(
            f"there is no handler {name}: neither a file {name}.py in the archive nor a module"
        ) from None


def _model_config(archive: Archive) -> Mapping[str, Any]:
    name = archive.model.get("configFile")
    if not name:
        return {}
    try:
        found = importlib.import_module("yaml").safe_load((archive.directory / name).read_text())
    except Exception as error:
        raise LoadError(f"{name} of {archive.name} cannot be read as YAML: {error}") from error
    return found if isinstance(found, dict) else {}


def _value(request: InvocationRequest) -> Any:
    """As TorchServe hands in bodies: JSON read, text as text, anything else as bytes."""
    kind = encoding.plain(request.head.content_type or "")
    body = bytes(request.body)
    try:
        if kind == encoding.JSON:
            return json.loads(body)
        if kind.startswith("text/"):
            return body.decode()
    except (ValueError, RecursionError):
        return body
    return body


def _body(value: Any) -> tuple[bytes, str]:
    """Raises `TypeError`."""
    if isinstance(value, bytes | bytearray):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    if hasattr(value, "untyped_storage"):  # a tensor
        stream = importlib.import_module("io").BytesIO()
        importlib.import_module("torch").save(value, stream)
        return stream.getvalue(), "application/octet-stream"
    return json.dumps(value, indent=2).encode(), encoding.JSON


def _status(told: Any) -> int:
    """What a handler may say of an answer; anything else would leave who asked without one."""
    try:
        status = int(told)
    except (TypeError, ValueError):
        return 500
    return status if 200 <= status <= 599 else 500


def _refusal(status: int, words: str) -> InvocationResponse:
    kinds = {503: "InternalServerException", 507: "InsufficientStorageException"}
    text = json.dumps(
        {"code": status, "type": kinds.get(status, "PredictionException"), "message": words}, indent=2
    )
    return InvocationResponse(status, encoding.JSON, text.encode())
