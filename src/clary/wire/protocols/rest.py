"""What REST-JSON and REST-XML share: members bound to the path, the query, headers and the payload.

The two differ only in how a structure becomes a body, which their subclasses say.
"""

import base64
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.messages import HeaderList, Request, Response
from clary.wire.operations import FileBody
from clary.wire.protocols import eventstream, values
from clary.wire.protocols.base import (
    Member,
    Protocol,
    ShapeError,
    list_items,
    map_entries,
    merged_headers,
    present_members,
    whole_body,
    wire_name,
)
from clary.wire.protocols.events import event_frames
from clary.wire.routing import bind_path, split_template

_MAX_QUERY_PAIRS = 1000

_BOUND = ("uri", "querystring", "header", "headers", "statusCode")

# A header's list: items between commas, in double quotes where they hold commas or quotes themselves.
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^",]*))\s*(?:,|$)')

# What HTTP carries in a header: visible Latin-1, spaces and tabs.
_UNSENDABLE = re.compile("[^\t\x20-\x7e\x80-\xff]")


class RestProtocol(Protocol):
    """Parses and serializes the bindings; bodies are the subclasses' affair."""

    request_id_header: str
    body_content_type: str

    @abstractmethod
    def read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        """The unbound members in a body, or the members of a payload structure."""

    @abstractmethod
    def write_body(self, operation: OperationModel, shape: Shape, members: Iterable[Member]) -> bytes:
        """The body for the unbound members of `shape`, or for those of a payload structure."""

    @abstractmethod
    def write_event(self, shape: Shape, value: Any, path: str) -> bytes:
        """The payload of an event."""

    @abstractmethod
    def malformed_binding(self, name: str, text: str) -> Fault:
        """The refusal of a header, a query parameter or a part of the path."""

    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        shape = operation.input_shape
        if shape is None:
            return {}
        members = self._read_bindings(shape, operation.http["requestUri"], request)
        return members | self._read_payload(shape, request)

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
        status = status or operation.http.get("responseCode", 200)
        bound: list[tuple[str, str]] = [(self.request_id_header, request_id)]
        unbound: list[Member] = []
        for name, member, value in present_members(shape, members or {}, operation.name):
            if member.serialization.get("location") == "statusCode":
                status = int(value)
            elif member.serialization.get("location"):
                bound.extend(_written_headers(member, wire_name(member, name), value, operation.name))
            else:
                unbound.append((name, member, value))
        content_type, body = self._write_payload(operation, shape, unbound)
        if content_type and not any(name.lower() == "content-type" for name, _ in bound):
            bound.append(("Content-Type", content_type))
        _settle_length(bound, body, operation.name)
        return Response(status, merged_headers(bound, headers), b"" if status == 204 else body)

    def _read_bindings(self, shape: StructureShape, request_uri: str, request: Request) -> dict[str, Any]:
        labels = bind_path(split_template(request_uri.partition("?")[0]), request.path) or {}
        query = self._read_query(request.query)
        read: dict[str, Any] = {}
        for name, member in shape.members.items():
            location, key = member.serialization.get("location"), wire_name(member, name)
            if location == "uri" and key in labels:
                read[name] = self._scalar(member, key, self._unquoted(key, labels[key]), values.ISO8601)
            elif location == "querystring" and key in query:
                read[name] = self._query_value(member, key, query[key])
            elif location == "header" and key.lower() in request.headers:
                read[name] = self._header_value(member, key, request.headers[key.lower()])
            elif location == "headers":
                read |= _header_map(name, key.lower(), request.headers)
        return read

    def _read_query(self, query: str) -> dict[str, list[str]]:
        try:
            pairs = parse_qsl(
                _utf8(query), keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_PAIRS
            )
        except ValueError as error:
            raise self.malformed_binding("query", query) from error
        read: dict[str, list[str]] = {}
        for name, text in pairs:
            read.setdefault(name, []).append(text)
        return read

    def _unquoted(self, name: str, text: str) -> str:
        try:
            return unquote(_utf8(text), errors="strict")
        except ValueError as error:
            raise self.malformed_binding(name, text) from error

    def _query_value(self, member: Shape, name: str, texts: list[str]) -> Any:
        if isinstance(member, ListShape):
            return [self._scalar(member.member, name, text, values.ISO8601) for text in texts]
        return self._scalar(member, name, texts[0], values.ISO8601)

    def _header_value(self, member: Shape, name: str, text: str) -> Any:
        if isinstance(member, ListShape):
            items = _split_list(text) if member.member.type_name != "timestamp" else [text]
            return [self._scalar(member.member, name, item, values.RFC822) for item in items]
        if member.serialization.get("jsonvalue"):
            return self._json_header(name, text)
        return self._scalar(member, name, text, values.RFC822)

    def _json_header(self, name: str, text: str) -> Any:
        try:
            return msgspec.json.decode(base64.b64decode(text, validate=True))
        except (ValueError, RecursionError) as error:
            raise self.malformed_binding(name, text) from error

    def _scalar(self, shape: Shape, name: str, text: str, timestamp_format: str) -> Any:
        try:
            return values.read(shape, text, timestamp_format)
        except ValueError as error:
            raise self.malformed_binding(name, text) from error

    def _read_payload(self, shape: StructureShape, request: Request) -> dict[str, Any]:
        payload = shape.serialization.get("payload")
        if payload is None:
            if all(member.serialization.get("location") in _BOUND for member in shape.members.values()):
                return {}
            return self.read_body(shape, whole_body(request))
        member = shape.members[payload]
        if member.serialization.get("streaming"):
            return {payload: request.body}
        body = whole_body(request)
        if isinstance(member, StructureShape):
            return {payload: self.read_body(member, body)} if body.strip() else {}
        if member.type_name == "string":
            return {payload: self._text_payload(payload, body)} if body else {}
        return {payload: body}

    def _text_payload(self, name: str, body: bytes) -> str:
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.malformed_binding(name, "the body") from error

    def _write_payload(
        self, operation: OperationModel, shape: StructureShape | None, unbound: list[Member]
    ) -> tuple[str | None, Any]:
        """The body and its type, unless a member says the type."""
        if shape is None or all(member.serialization.get("location") for member in shape.members.values()):
            return None, b""
        payload = shape.serialization.get("payload")
        if payload is None:
            return self.body_content_type, self.write_body(operation, shape, unbound)
        member = shape.members[payload]
        value = next((value for name, _, value in unbound if name == payload), None)
        if member.serialization.get("eventstream"):
            frames = event_frames(member, value or (), self.write_event, self.body_content_type)
            return eventstream.CONTENT_TYPE, frames
        if value is None:
            return None, b""
        path = f"{operation.name}.{payload}"
        if member.serialization.get("streaming"):
            return None, _streaming_body(value, path)
        if isinstance(member, StructureShape):
            inner = present_members(member, value, path)
            return self.body_content_type, self.write_body(operation, member, inner)
        scalar = values.checked(member, value, path)
        return None, scalar if isinstance(scalar, bytes) else str(scalar).encode()


def _utf8(raw: str) -> str:
    """A path or a query, whose bytes came as Latin-1. Clients encode what is not ASCII, but not all of them."""
    return raw.encode("latin-1").decode("utf-8")


def _header_map(name: str, prefix: str, headers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found = {key[len(prefix) :]: text for key, text in headers.items() if key.startswith(prefix)}
    return {name: found} if found else {}


def _split_list(text: str) -> list[str]:
    items: list[str] = []
    position = 0
    while position < len(text):
        match = _LIST_ITEM.match(text, position)
        if match is None:
            # A quote that is never closed: what is left is one item, as it stands.
            return [*items, text[position:].strip()]
        quoted, plain = match.groups()
        items.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain.strip())
        position = match.end()
    return items


def _written_headers(member: Shape, name: str, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(member, MapShape):
        for where, key, item in map_entries(value, path):
            yield _sendable(name + key), _sendable(values.written(member.value, item, where))
    elif isinstance(member, ListShape):
        items = [
            values.written(member.member, item, where, values.RFC822)
            for where, item in list_items(value, path)
        ]
        yield name, _sendable(", ".join(items))
    else:
        yield name, _sendable(values.written(member, value, f"{path}.{name}", values.RFC822))


def _sendable(text: str) -> str:
    """`text`, when HTTP can carry it in a header; such values come from what a caller once sent."""
    if _UNSENDABLE.search(text):
        raise Fault("InvalidArgument", "Header value cannot be represented using ISO-8859-1.")
    return text


def _streaming_body(value: Any, path: str) -> Any:
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, bytes | FileBody) or hasattr(value, "__next__"):
        return value
    raise ShapeError(path, f"bytes, a file or an iterator is due, not {type(value).__name__}")


def _settle_length(bound: list[tuple[str, str]], body: Any, path: str) -> None:
    """A file's length goes into the headers; one that a handler gave must be the true one."""
    length = body.length if isinstance(body, FileBody) else len(body) if isinstance(body, bytes) else None
    given = [text for name, text in bound if name.lower() == "content-length"]
    if given and length and given[0] != str(length):
        raise ShapeError(path, f"the body has {length} bytes, not {given[0]}")
    if not given and isinstance(body, FileBody):
        bound.append(("Content-Length", str(length)))
