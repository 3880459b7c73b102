"""How a service says which operations it answers.

A handler is a method marked `@operation("CreateModel")` of an object that holds what it needs (store, clock …);
`OperationTable.add("sagemaker", Models(store, clock))` enters all marked methods. The wire server looks up,
parses, validates, calls the handler on a thread of its pool, and serializes what it returns. A fault is raised.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast

from clary.domain.principals import Principal


class Readable(Protocol):
    """A request's streaming body, as its handler reads it: on its own thread, blocking.

    Framing is already undone (chunked, aws-chunked). Reading to the end verifies the signed hash, the chunk
    signatures and the length: a fault is raised instead of the last byte when one is wrong, so a handler
    commits only after `read` gave b"". `trailers` are known then.
    """

    @property
    def trailers(self) -> Mapping[str, str]: ...

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as its handler sees it.

    `headers` are the request's, names in lower case. `body` is its whole body, as it was signed, with the `trailers`
    behind it; both are empty where the input streams. `may_hold`: the handler may raise `Held`.
    """

    service: str
    operation: str
    account: str
    region: str
    principal: Principal
    request_id: str
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: Mapping[str, str] = field(default_factory=dict)
    may_hold: bool = False


class Held(Exception):
    """Raised by a handler instead of an answer that will soon be another: the request waits and comes again.

    `watch(tell)` has `tell` called, from any thread, when it is time; it returns what ends the watch.
    """

    def __init__(self, watch: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        super().__init__("the answer is about to change")
        self.watch = watch


@dataclass(frozen=True, slots=True)
class FileBody:
    """A streaming answer that lies in a file: `length` bytes from `offset`.

    `keep` is whatever holds the file's content in place, such as the descriptor that a /proc/self/fd path leads
    through: it lives as long as this does, so whoever opens `path` holds this until then.
    """

    path: str
    offset: int
    length: int
    keep: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler returns when the output members alone do not say it: another status, more headers."""

    members: Mapping[str, Any]
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Body = bytes | FileBody | Iterator[bytes]
"""What a streaming output member may hold."""

Handler = Callable[[Call, Any], Mapping[str, Any] | Answer | None]

_H = TypeVar("_H", bound=Callable[..., Any])

_MARK = "__aws_operation__"


def operation(name: str) -> Callable[[_H], _H]:
    """Marks a method as the handler of one AWS operation."""

    def mark(handler: _H) -> _H:
        setattr(handler, _MARK, name)
        return handler

    return mark


def marked_in(package: ModuleType) -> list[str]:
    """The operations that the classes of a package's modules answer, sorted; nothing is made for it."""
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in iter_modules(package.__path__)
    ]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    marks = {getattr(value, _MARK, None) for cls in classes for value in vars(cls).values()}
    return sorted(mark for mark in marks if mark is not None)


class Caller(Protocol):
    """Calls an operation of this server as the server itself: how a reconciler or a service uses another one."""

    def __call__(
        self, service: str, operation: str, params: Mapping[str, Any], *, account: str, region: str
    ) -> Mapping[str, Any]:
        """The output's members. Raises the Fault that a client would see, `ValidationException` for bad input too."""


class OperationTable:
    """(service, operation) → handler. A service is named as botocore names it: `sagemaker`, `s3`, `logs`."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}

    def add(self, service: str, *resources: object) -> None:
        for resource in resources:
            for attribute in dir(type(resource)):
                name = getattr(getattr(type(resource), attribute), _MARK, None)
                if name is None:
                    continue
                if (service, name) in self._handlers:
                    raise ValueError(f"two handlers for {service}.{name}")
                self._handlers[service, name] = cast(Handler, getattr(resource, attribute))

    def find(self, service: str, name: str) -> Handler | None:
        return self._handlers.get((service, name))

    def implemented(self) -> list[tuple[str, str]]:
        """Every (service, operation) there is, sorted."""
        return sorted(self._handlers)
