"""Scripts around TensorFlow Serving: `input_handler` and `output_handler`, or `handler` alone, which wins.

The handlers run in workers (`clary.runtimes.workers`). What `input_handler` returns is posted to the instance's own
REST API, and `output_handler` gets the answer as a `requests.Response`; `handler` posts to `context.rest_uri` itself.
The body is read as a file is. Whatever a handler raises is status 500 with its words, as the container has it.
"""

import asyncio
import importlib
import importlib.util
import io
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

from clary.runtimes.contract import (
    Dispatcher,
    InvocationHead,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
)
from clary.runtimes.frameworks.tensorflow.bundles import Bundle
from clary.runtimes.frameworks.tensorflow.payloads import JSON
from clary.runtimes.frameworks.tensorflow.rest import ModelProcess
from clary.runtimes.frameworks.tensorflow.settings import Settings, script_environment
from clary.runtimes.frameworks.tensorflow.targets import attributes_of, path_of
from clary.runtimes.frameworks.tensorflow.tensors import dump
from clary.runtimes.handler import Script
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES
from clary.runtimes.workers import LONGEST_PAUSE_S, ScriptedModel, Workers, settings_of

Handle = Callable[[Any, "Context"], tuple[Any, Any]]
FIRST_PAUSE_S = 0.1
_PACKAGES = "lib"
_OTHERS = ("model_fn", "predict_fn", "transform_fn", "input_fn", "output_fn")

log = logging.getLogger(__name__)


def serve(
    script: Script,
    bundles: Sequence[Bundle],
    default: str,
    settings: Settings,
    environment: Mapping[str, str],
    vcpus: int,
) -> "HandledModel":
    """Raises `LoadError`."""
    count, timeout_s = settings_of(script_environment(environment), vcpus)
    process = ModelProcess(bundles, settings)
    load = partial(load_handlers, script, process.port, process.root, default)
    scripted: ScriptedModel | None = None
    try:
        scripted = ScriptedModel(load, count, timeout_s, Limits(LARGEST_PAYLOAD_BYTES, "SINGLE_RECORD"))
        process.await_loaded()
    except BaseException:
        if scripted is not None:
            scripted.end()
        process.end()
        with suppress(ChildProcessError):  # it is known already how it ended
            process.await_end()
        raise
    return HandledModel(scripted, process)


def error_response(status: int, words: str) -> InvocationResponse:
    return InvocationResponse(status, JSON, dump({"error": words}))


class HandledModel:
    """See `contract.Scripted`."""

    def __init__(self, scripted: ScriptedModel, process: ModelProcess) -> None:
        self.limits = scripted.limits
        self._scripted = scripted
        self._process = process

    @property
    def pids(self) -> Sequence[int]:
        return [*self._scripted.pids, self._process.pid]

    async def dispatcher(self, loop: asyncio.AbstractEventLoop) -> Dispatcher:
        return _Handled(loop, await self._scripted.dispatcher(loop), self._process)


class _Handled:
    """The workers, and the process with the models that they ask. See `contract.Dispatcher`.

    Without its models an instance with one model is of no use: it ends with their process. Among others the process is
    started again, and until it is there who asks waits at its port.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Workers, process: ModelProcess) -> None:
        self._loop = loop
        self._workers = workers
        self._process = process
        self._is_running = False
        self._closed = False
        self._pause_s = FIRST_PAUSE_S
        self.submit = workers.submit
        self._watch()

    @property
    def pids(self) -> Sequence[int]:
        return [*self._workers.pids, *([self._process.pid] if self._is_running else [])]

    def close(self) -> None:
        self._closed = True
        self._workers.close()
        if self._is_running:
            self._process.end()

    def _watch(self) -> None:
        pidfd = os.pidfd_open(self._process.pid)
        self._is_running = True
        self._loop.add_reader(pidfd, self._ended, pidfd)

    def _ended(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        how = self._process.await_end()
        self._is_running = False
        if self._closed:
            return
        log.error("the process that holds the models has ended: %s", how)
        if not self._process.can_start_again:
            sys.stdout.flush()
            os._exit(1)
        self._loop.call_later(self._pause_s, self._start_again)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def _start_again(self) -> None:
        if self._closed:
            return
        try:
            self._start_watched()
        except OSError as error:  # no more processes or descriptors now
            log.error("the process that holds the models could not be started: %s", error)
            self._loop.call_later(self._pause_s, self._start_again)

    def _start_watched(self) -> None:
        self._process.start()
        try:
            self._watch()
        except OSError:
            os.kill(self._process.pid, signal.SIGKILL)  # nobody would see it end
            self._process.await_end()
            raise


def load_handlers(script: Script, port: int, root: str, default: str) -> "Handlers":
    """Runs the script. Raises `LoadError` for what only its author can put right."""
    packages = [folder / _PACKAGES for folder in script.folders if (folder / _PACKAGES).is_dir()]
    sys.path[:0] = [str(folder) for folder in (*script.folders, *packages)]
    module = _run(script)
    models = _Models(port, root)
    if callable(found := getattr(module, "handler", None)):
        return Handlers(found, models, default)
    before, after = getattr(module, "input_handler", None), getattr(module, "output_handler", None)
    if not (callable(before) and callable(after)):
        raise LoadError(_lacks_handlers(script, module))
    return Handlers(partial(_around, before, after, models), models, default)


def _around(
    before: Callable[..., Any], after: Callable[..., Any], models: "_Models", data: Any, context: "Context"
) -> Any:
    return after(models.post(context.path, before(data, context)), context)


def _run(script: Script) -> ModuleType:
    """Imports the script from its path: no module of its name that is installed can take its place."""
    spec = importlib.util.spec_from_file_location(script.module_name, script.path)
    assert spec is not None and spec.loader is not None, "it is a .py file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.module_name] = module
    spec.loader.exec_module(module)
    return module


def _lacks_handlers(script: Script, module: ModuleType) -> str:
    has = [name for name in ("input_handler", "output_handler") if callable(getattr(module, name, None))]
    other = [name for name in _OTHERS if callable(getattr(module, name, None))]
    found = f"only {has[0]}" if has else "neither"
    if other:
        found += f", but {', '.join(other)}, which TensorFlow's container does not call"
    return (
        f"{script.path.name} has {found}: define input_handler(data, context) and output_handler(response, context), "
        "or handler(data, context) that does it all"
    )


class Context:
    """What handlers learn of a request: the fields of the container's."""

    def __init__(self, head: InvocationHead, length: int, models: "_Models", default: str) -> None:
        attributes = attributes_of(head.custom_attributes)
        self.model_name = attributes.get("tfs-model-name")
        self.model_version = attributes.get("tfs-model-version")
        self.method = attributes.get("tfs-method")
        self.path = path_of(attributes, default)
        self.rest_uri = models.uri_of(self.path)
        self.custom_attributes = head.custom_attributes or None
        self.request_content_type = head.content_type or JSON
        self.accept_header = head.accept or JSON
        self.content_length = length

    @property
    def grpc_port(self) -> int:
        raise NotImplementedError("context.grpc_port: gRPC is not served here; post to context.rest_uri")

    @property
    def channel(self) -> Any:
        raise NotImplementedError("context.channel: gRPC is not served here; post to context.rest_uri")


class Handlers:
    """A script, as a worker runs it. See `handler.Answers`."""

    def __init__(self, handle: Handle, models: "_Models", default: str) -> None:
        self._handle = handle
        self._models = models
        self._default = default

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        head, body = request
        context = Context(head, len(body), self._models, self._default)
        try:
            content, content_type = self._handle(io.BytesIO(body), context)
            return InvocationResponse(200, str(content_type), _bytes_of(content))
        except Exception as error:  # noqa: BLE001  (a user's code: anything may come)
            print(f"invocation failed: {traceback.format_exc()}", file=sys.stderr, flush=True)
            return error_response(500, str(error))


def _bytes_of(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise TypeError(
        f"the handler's answer is of type {type(content).__name__}: return str or bytes, and a content type"
    )


class _Models:
    """One worker's connection to the REST API of its instance, kept open."""

    def __init__(self, port: int, root: str) -> None:
        self._port = port
        self._root = root
        self._requests = importlib.import_module("requests")
        self._connection: socket.socket | None = None

    def uri_of(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}{self._root}{path}"

    def post(self, path: str, body: Any) -> Any:
        """The answer as a `requests.Response`."""
        content = body.read() if hasattr(body, "read") else body
        status, answer = self._exchange(path, _bytes_of(content))
        response = self._requests.Response()
        response.status_code = status
        response.url = self.uri_of(path)
        response.headers["Content-Type"] = JSON
        response.encoding = "utf-8"
        response.raw = io.BytesIO(answer)
        return response

    def _exchange(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self._connection is not None and _is_gone(self._connection):
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port))
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            head = f"POST {self._root}{path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            self._connection.sendall(head.encode("latin-1", "replace") + body)
            return _read_answer(self._connection)
        except BaseException:
            self._connection.close()  # whatever is on its way would be taken for the next answer
            self._connection = None
            raise


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end of an idle connection is not there any more: the process was started again."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Of this package's own server, which says the length of every answer."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        _receive(connection, received)
    head = bytes(received[:end])
    del received[: end + 4]
    length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
    while len(received) < length:
        _receive(connection, received)
    return int(head.split(b" ", 2)[1]), bytes(received)


def _receive(connection: socket.socket, received: bytearray) -> None:
    part = connection.recv(1 << 18)
    if not part:
        raise ConnectionError("the process that holds the models closed the connection")
    received += part
