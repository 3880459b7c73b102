"""What every protocol promises, and the strictness that all of them share.

Two kinds of error leave a protocol, and they must not be mixed up:

    Fault         the request is malformed: the caller's mistake
    ShapeError    what a handler returned does not fit the operation's output: a bug of ours
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import OperationModel, Shape, StructureShape

from clary.wire.messages import HeaderList, Request, Response

# Deeper than any shape of any service; what lies deeper in a request is an attempt at the stack.
MAX_DEPTH = 100


class ShapeError(Exception):
    """An answer that does not fit the service model."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


Member = tuple[str, Shape, Any]
"""A member of an answer: its name, its shape, its value, which is not None."""


class Protocol(ABC):
    """One AWS protocol from the server's side."""

    @abstractmethod
    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """The input members, in botocore's Python types.

        Times are aware and UTC, blobs are bytes, a streaming blob is the request's body untouched. Unknown members
        are ignored and absent ones left out. Raises Fault for what cannot be read; nothing else.
        """

    @abstractmethod
    def serialize(
        self,
        operation: OperationModel,
        members: Mapping[str, Any] | None,
        *,
        status: int | None = None,
        headers: HeaderList = (),
        request_id: str,
    ) -> Response:
        """The response that carries `members`; those that are None are left out.

        `status` replaces the modelled one, `headers` replace bound ones of the same name and are added otherwise.
        Raises ShapeError for a member that the output does not have, of the wrong type, or missing though required;
        and Fault for a value taken from the request that HTTP cannot carry in a header.
        """


def whole_body(request: Request) -> bytes:
    """The body of an operation whose input does not stream."""
    if not isinstance(request.body, bytes):
        raise TypeError("this operation's body must be read before it is parsed")
    return request.body


def present_members(shape: StructureShape | None, value: object, path: str) -> Iterator[Member]:
    """The members of one structure of an answer, checked, in the model's order. No shape: no members."""
    if not isinstance(value, Mapping):
        raise ShapeError(path, f"a structure is due, not {type(value).__name__}")
    unknown = [name for name in value if shape is None or name not in shape.members]
    if unknown:
        raise ShapeError(path, f"there is no member {', '.join(map(str, unknown))}")
    if shape is None:
        return
    missing = [name for name in shape.required_members if value.get(name) is None]
    if missing:
        raise ShapeError(path, f"{shape.name} needs {', '.join(missing)}")
    present = [name for name in shape.members if value.get(name) is not None]
    if shape.is_tagged_union and len(present) != 1:
        raise ShapeError(path, f"{shape.name} holds exactly one member")
    for name in present:
        yield name, shape.members[name], value[name]


def list_items(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """The items of one list of an answer with their paths."""
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise ShapeError(path, f"a list is due, not {type(value).__name__}")
    for index, item in enumerate(value):
        yield f"{path}[{index}]", item


def map_entries(value: object, path: str) -> Iterator[tuple[str, str, Any]]:
    """The entries of one map of an answer with their paths."""
    if not isinstance(value, Mapping):
        raise ShapeError(path, f"a map is due, not {type(value).__name__}")
    for key, item in value.items():
        if not isinstance(key, str):
            raise ShapeError(path, f"a map's key is a string, not {type(key).__name__}")
        yield f"{path}.{key}", key, item


def wire_name(shape: Shape, default: str) -> str:
    """The name that a member bears on the wire."""
    name = shape.serialization.get("name")
    return name if isinstance(name, str) else default


def merged_headers(bound: HeaderList, given: HeaderList) -> list[tuple[str, str]]:
    """The bound headers and those that a handler gave, which win."""
    replaced = {name.lower() for name, _ in given}
    return [*((name, value) for name, value in bound if name.lower() not in replaced), *given]


def event_stream_member(shape: StructureShape) -> str | None:
    """The name of the member that is a stream of events."""
    streams = (name for name, member in shape.members.items() if member.serialization.get("eventstream"))
    return next(streams, None)
