"""RPC v2 CBOR: `POST /service/X/operation/Y`, one CBOR map each way.

Where JSON leaves room CBOR has none: blobs are byte strings, times carry tag 1, floats are floats. A request is
decoded whole by cbor2, then held against the operation's shapes: what no shape knows never reaches a handler.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import cbor2
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.messages import HeaderList, Request, Response
from clary.wire.protocols import values
from clary.wire.protocols.base import (
    MAX_DEPTH,
    Member,
    Protocol,
    list_items,
    map_entries,
    merged_headers,
    present_members,
    whole_body,
    wire_name,
)

CONTENT_TYPE = "application/cbor"
HEADER = ("smithy-protocol", "rpc-v2-cbor")

_EPOCH_TAG = 1


class CborProtocol(Protocol):
    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        body = whole_body(request)
        shape = operation.input_shape
        if not body or shape is None:
            return {}
        return _read_structure(shape, _document(body))

    def serialize(
        self,
        operation: OperationModel,
        members: Mapping[str, Any] | None,
        *,
        status: int | None = None,
        headers: HeaderList = (),
        request_id: str,
    ) -> Response:
        shape = operation.output_shape
        checked = list(present_members(shape, members or {}, operation.name))
        bound = [("x-amzn-RequestId", request_id), HEADER]
        if shape is None:
            return Response(status or 200, merged_headers(bound, headers), b"")
        body = cbor2.dumps(_written_members(checked, operation.name))
        return Response(
            status or 200, merged_headers([*bound, ("Content-Type", CONTENT_TYPE)], headers), body
        )


def _document(body: bytes) -> Mapping[Any, Any]:
    try:
        document = cbor2.loads(
            body,
            max_depth=MAX_DEPTH,
            strict_hashable_types=True,
            semantic_decoders=_TAGS,
        )
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError) as error:
        raise _malformed("The request body is not valid CBOR.") from error
    if not isinstance(document, Mapping):
        raise _malformed("The request body is not a CBOR map.")
    return document


class _Epoch(float):
    """Seconds since 1970 that came as a time."""


def _epoch(value: Any, _: bool) -> _Epoch:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a time is a number")
    return _Epoch(value)


def _unwanted(value: Any, _: bool) -> Any:
    raise ValueError("a tag that no shape has a use for")


# Tags that cbor2 would make objects of: regular expressions, references to what encloses them, huge numbers …
_UNWANTED_TAGS = (
    0,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)
_TAGS = {_EPOCH_TAG: _epoch, **dict.fromkeys(_UNWANTED_TAGS, _unwanted)}


def _read(shape: Shape, value: Any) -> Any:
    """One value that is not null."""
    if isinstance(shape, StructureShape):
        return _read_structure(shape, value)
    if isinstance(shape, ListShape):
        if not isinstance(value, list | tuple):
            raise _mismatch(shape)
        return [None if item is None else _read(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        if not isinstance(value, Mapping) or any(not isinstance(key, str) for key in value):
            raise _mismatch(shape)
        return {key: None if item is None else _read(shape.value, item) for key, item in value.items()}
    return _READERS[shape.type_name](shape, value)


def _read_structure(shape: StructureShape, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(shape)
    found = ((name, member, value.get(wire_name(member, name))) for name, member in shape.members.items())
    return {name: _read(member, item) for name, member, item in found if item is not None}


def _string(shape: Shape, value: Any) -> str:
    if not isinstance(value, str):
        raise _mismatch(shape)
    return value


def _integer(shape: Shape, value: Any) -> int:
    if isinstance(value, float) and value.is_integer() and not isinstance(value, _Epoch):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(shape)
    try:
        return values.in_range(shape, value)
    except ValueError as error:
        raise _mismatch(shape) from error


def _float(shape: Shape, value: Any) -> float:
    if isinstance(value, bool | _Epoch) or not isinstance(value, int | float):
        raise _mismatch(shape)
    try:
        return float(value)
    except OverflowError as error:
        raise _mismatch(shape) from error


def _boolean(shape: Shape, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(shape)
    return value


def _blob(shape: Shape, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise _mismatch(shape)
    return value


def _timestamp(shape: Shape, value: Any) -> datetime:
    if not isinstance(value, _Epoch):
        raise _mismatch(shape)
    try:
        return values.read_timestamp(float(value), values.UNIX)
    except ValueError as error:
        raise _mismatch(shape) from error


def _written_members(members: Iterable[Member], path: str) -> dict[str, Any]:
    return {wire_name(shape, name): _written(shape, item, f"{path}.{name}") for name, shape, item in members}


def _written(shape: Shape, value: object, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _written_members(present_members(shape, value, path), path)
    if isinstance(shape, ListShape):
        return [_written(shape.member, item, where) for where, item in list_items(value, path)]
    if isinstance(shape, MapShape):
        return {key: _written(shape.value, item, where) for where, key, item in map_entries(value, path)}
    scalar = values.checked(shape, value, path)
    if isinstance(scalar, datetime):
        return cbor2.CBORTag(_EPOCH_TAG, values.epoch_seconds(scalar))
    return scalar


def _mismatch(shape: Shape) -> Fault:
    return _malformed(f"A value that is due to be a {shape.type_name} is none.")


def _malformed(message: str) -> Fault:
    return Fault("SerializationException", message)


_READERS: dict[str, Callable[[Shape, Any], Any]] = {
    "string": _string,
    "character": _string,
    "integer": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "boolean": _boolean,
    "blob": _blob,
    "timestamp": _timestamp,
}
