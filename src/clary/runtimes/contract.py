"""What a framework promises to the model server: `load` makes a `Model`, and a model predicts batches.

A framework is a module with one function of the type `Load`. The server knows nothing of content types or of
arrays; a model knows nothing of connections. Both sides of a request are plain values.

Errors:

    InvocationError       one request cannot be answered; becomes its HTTP status and text
    ├── BadRequest            400  understood, but this model cannot evaluate it
    ├── NotAcceptable         406  no answer in the form that `Accept` asks for
    ├── UnsupportedMediaType  415  the body cannot be read as what it says it is
    ├── HandlerFailed         500
    └── Overloaded            503  too much is waiting already
    LoadError             the model cannot serve; the text is for the person who made it
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class InvocationHead:
    """What the headers of a request say. Shared by all requests that came with the same headers."""

    content_type: str | None
    accept: str | None
    custom_attributes: str
    headers: tuple[tuple[str, str], ...]  # all of them, names in lower case


class InvocationRequest(NamedTuple):
    """A tuple because one is made per request, on the hot path."""

    head: InvocationHead
    body: bytes


class InvocationResponse(NamedTuple):
    status: int
    content_type: str
    body: bytes
    custom_attributes: str = ""
    session_fields: tuple[tuple[str, str], ...] = ()  # headers that open or close a stateful session


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server enforces for a model, and tells batch jobs at `/execution-parameters`."""

    max_payload_bytes: int
    batch_strategy: str = "MULTI_RECORD"
    concurrency: int = 0  # batches predicted at a time beside the event loop; 0: as many as vCPUs


class Model(Protocol):
    """A loaded model."""

    @property
    def limits(self) -> Limits: ...

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        """One response for each request, in their order; a bad request spoils no other's answer.

        Called from several threads at once. May raise: then the server tries the requests one by one, and
        answers 500 to those that fail alone too.
        """


Deliver = Callable[[Sequence[InvocationResponse]], None]
"""Takes the answers of a group of requests, in their order."""


class Dispatcher(Protocol):
    """Where connections hand in requests. Belongs to one event loop; everything is called on it."""

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        """Takes a group of requests. `deliver` is called on the loop, once, and never before `submit` has returned."""

    def close(self) -> None: ...


@runtime_checkable
class Scripted(Protocol):
    """A loaded model that is a user's script, answered by processes of its own (`clary.runtimes.workers`)."""

    @property
    def limits(self) -> Limits: ...

    async def dispatcher(self, loop: asyncio.AbstractEventLoop) -> Dispatcher: ...


class Load(Protocol):
    def __call__(self, model_dir: Path, environment: Mapping[str, str], vcpus: int) -> Model | Scripted:
        """Reads the artefacts of `model_dir`. Raises `LoadError` with words that say what to do."""


class LoadError(Exception):
    """The artefacts or the environment do not make a model that can serve."""


class InvocationError(Exception):
    status = 500

    def response(self) -> InvocationResponse:
        return InvocationResponse(self.status, "text/html; charset=utf-8", str(self).encode())


class BadRequest(InvocationError):
    status = 400


class NotAcceptable(InvocationError):
    status = 406


class UnsupportedMediaType(InvocationError):
    status = 415


class HandlerFailed(InvocationError):
    status = 500


class Overloaded(InvocationError):
    status = 503
