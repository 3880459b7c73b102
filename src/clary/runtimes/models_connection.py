"""Connections to a server of many models: which model a request is for, and the `/models` routes.

    POST /models                  {"model_name": …, "url": …}: 200, 409, 507
    GET  /models                  a page of names; `next_page_token`
    GET | DELETE /models/NAME     404 where it is not loaded
    POST /models/NAME/invoke      what `/invocations` is elsewhere

The usual request is as cheap as one of a single model: of its head the lines that name the model are looked up by
themselves, so that the rest is the same bytes for all models and is parsed once. Requests that lie there together may
be for different models: each model gets its share as one group, and the answers go out in the order of the requests.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from clary.runtimes.connection import MOST_TOGETHER, Connection, Service
from clary.runtimes.contract import Deliver, InvocationHead, InvocationRequest, InvocationResponse
from clary.runtimes.heads import HeadCache, RequestHead
from clary.runtimes.models import Loaded, Shelf

TARGET = "x-amzn-sagemaker-target-model"
_TARGET_LINE = f"\r\n{TARGET}: ".encode()
_MOST_LINES = 65536
_MOST_RESTS = 8192
_PLAIN = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)


class ModelHeads(HeadCache):
    """Remembers heads of invocations in two parts: the lines that name the model, and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[bytes, tuple[str, str]] = {}
        """The request line, with the target's line behind it: the model's name, and the target."""
        self.rests: dict[bytes, tuple[InvocationHead, int]] = {}

    def parse(self, head: bytes) -> RequestHead:
        parsed = super().parse(head)
        name = invoked(parsed.path)
        is_usual = parsed.keep_alive and not parsed.chunked and not parsed.expects_continue
        if name and parsed.method == "POST" and is_usual:
            self._remember(head, name, parsed)
        return parsed

    def _remember(self, head: bytes, name: str, parsed: RequestHead) -> None:
        lines, rest = split(head, 0, len(head))
        headers = parsed.invocation.headers
        target = next((value for key, value in headers if key == TARGET), "")
        if len(self.names) >= _MOST_LINES:
            self.names.clear()
        if len(self.rests) >= _MOST_RESTS:
            self.rests.clear()
        self.names[lines] = name, target
        others = tuple(each for each in headers if each[0] != TARGET)
        self.rests[rest] = replace(parsed.invocation, headers=others), parsed.length


def split(data: bytes | bytearray, start: int, end: int) -> tuple[bytes, bytes]:
    """Of the head from `start` to `end`: the lines that name the model, and the rest."""
    first = data.find(b"\r\n", start) + 2
    at = data.find(_TARGET_LINE, first - 2, end) + 2
    if at < 2:
        return bytes(data[start:first]), bytes(data[first:end])
    behind = data.find(b"\r\n", at) + 2
    return bytes(data[start:first] + data[at:behind]), bytes(data[first:at] + data[behind:end])


def invoked(path: str) -> str:
    """The model that an invocation's path names; empty when it is none."""
    if path.startswith("/models/") and path.endswith("/invoke"):
        name = path[8:-7]
        return "" if "/" in name else name
    return ""


class ModelsService(Service):
    def __init__(self, shelf: Shelf, max_payload_bytes: int, execution_parameters: dict[str, object]) -> None:
        super().__init__(shelf, max_payload_bytes, execution_parameters)
        self.shelf = shelf
        self.heads: ModelHeads = ModelHeads()
        self.tasks: set[asyncio.Task[None]] = set()

    def connect(self) -> Connection:
        return ModelsConnection(self)


class ModelsConnection(Connection):
    def __init__(self, service: ModelsService) -> None:
        super().__init__(service)
        self._models = service
        self._loaded = service.shelf.loaded
        self._names = service.heads.names
        self._rests = service.heads.rests

    def _take_usual(self, data: bytes | bytearray) -> int:
        limit = self._models.max_payload_bytes
        taken: list[tuple[Loaded, InvocationRequest]] = []
        start = 0
        while len(taken) < MOST_TOGETHER:
            body = data.find(b"\r\n\r\n", start) + 4
            if body < 4:
                break
            lines, rest = split(data, start, body)
            named, known = self._names.get(lines), self._rests.get(rest)
            if named is None or known is None:  # not seen before, or unusual
                break
            loaded = self._loaded.get(named[0])
            invocation, length = known
            end = body + length
            if loaded is None or length > min(limit, loaded.max_payload_bytes) or end > len(data):
                break
            if loaded.is_scripted and named[1]:
                invocation = replace(invocation, headers=(*invocation.headers, (TARGET, named[1])))
            taken.append((loaded, InvocationRequest(invocation, bytes(data[body:end]))))
            start = end
        if taken:
            self._submit_taken(taken)
        return start

    def _submit_taken(self, taken: list[tuple[Loaded, InvocationRequest]]) -> None:
        self._answering = self._held = True
        first = taken[0][0]
        if all(loaded is first for loaded, _ in taken):
            first.submit([request for _, request in taken], self._answer)
        else:
            submit_mixed(taken, self._answer)

    def _take(self, head: RequestHead, body: bytes) -> None:
        if not (head.path == "/models" or head.path.startswith("/models/")):
            super()._take(head, body)
            return
        self._keep_alive = head.keep_alive
        if name := invoked(head.path):
            self._invoke(name, head, body)
            return
        answer = self._answer_about(head, body)
        if isinstance(answer, InvocationResponse):
            self._answer([answer])
        else:
            self._answer_later(answer)

    def _invoke(self, name: str, head: RequestHead, body: bytes) -> None:
        loaded = self._loaded.get(name)
        if head.method != "POST":
            self._answer([_refusal(405, "Method Not Allowed: models are invoked by POST")])
        elif loaded is None:
            self._answer([_refusal(404, f"Model not found: {name}")])
        elif len(body) > loaded.max_payload_bytes:
            text = f"Request Entity Too Large: at most {loaded.max_payload_bytes} bytes are accepted"
            self._answer([_refusal(413, text)])
        else:
            self._submit_taken([(loaded, InvocationRequest(head.invocation, body))])

    def _answer_about(
        self, head: RequestHead, body: bytes
    ) -> InvocationResponse | Coroutine[Any, Any, InvocationResponse]:
        shelf = self._models.shelf
        name = head.path.removeprefix("/models").removeprefix("/")
        if not name and head.method == "GET":
            return shelf.list(_token(head.query))
        if not name and head.method == "POST":
            return _load(shelf, body)
        if "/" in name:
            return _refusal(404, f"Not Found: {head.path}")
        if name and head.method == "GET":
            return shelf.describe(name)
        if name and head.method == "DELETE":
            return shelf.unload(name)
        return _refusal(405, f"Method Not Allowed: {head.method} {head.path}")

    def _answer_later(self, answer: Coroutine[Any, Any, InvocationResponse]) -> None:
        """This connection waits for it; the others go on."""
        self._answering = self._held = True
        task = asyncio.get_running_loop().create_task(self._await(answer))
        self._models.tasks.add(task)
        task.add_done_callback(self._models.tasks.discard)

    async def _await(self, answer: Coroutine[Any, Any, InvocationResponse]) -> None:
        try:
            response = await answer
        except Exception as error:  # whoever asked would wait for ever
            log.exception("a model could not be loaded or unloaded")
            response = _refusal(500, f"Internal Server Error: {type(error).__name__}: {error}")
        self._answer([response])


def submit_mixed(taken: Sequence[tuple[Loaded, InvocationRequest]], deliver: Deliver) -> None:
    """Each model's requests to it, as one group; `deliver` gets all answers, in the order of the requests."""
    gathering = _Gathering(len(taken), deliver)
    places = sorted(range(len(taken)), key=lambda place: id(taken[place][0]))
    for _, group in groupby(places, key=lambda place: id(taken[place][0])):
        of_one = list(group)
        loaded = taken[of_one[0]][0]
        loaded.submit([taken[place][1] for place in of_one], partial(gathering.take, of_one))


class _Gathering:
    def __init__(self, size: int, deliver: Deliver) -> None:
        self._answers: list[InvocationResponse | None] = [None] * size
        self._missing = size
        self._deliver: Callable[[Sequence[InvocationResponse]], None] = deliver

    def take(self, places: Sequence[int], answers: Sequence[InvocationResponse]) -> None:
        for place, answer in zip(places, answers, strict=True):
            self._answers[place] = answer
        self._missing -= len(places)
        if not self._missing:
            self._deliver([answer for answer in self._answers if answer is not None])


def _load(shelf: Shelf, body: bytes) -> InvocationResponse | Coroutine[Any, Any, InvocationResponse]:
    try:
        wanted = json.loads(body)
        name, url = str(wanted["model_name"]), str(wanted["url"])
    except (ValueError, TypeError, KeyError):
        return _refusal(400, 'Bad Request: a model is loaded by {"model_name": …, "url": …}')
    return shelf.load(name, url)


def _token(query: str) -> str:
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key == "next_page_token":
            return value
    return ""


def _refusal(status: int, text: str) -> InvocationResponse:
    return InvocationResponse(status, _PLAIN, text.encode("utf-8", "replace"))
