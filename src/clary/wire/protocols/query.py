"""The query protocol: a form each way in, `Action=…&Member.1.Name=…`, XML out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.messages import HeaderList, Request, Response
from clary.wire.protocols import values
from clary.wire.protocols.base import Protocol, merged_headers, present_members, whole_body, wire_name
from clary.wire.protocols.markup import element, escape
from clary.wire.protocols.xml_body import XmlWriter

# PutMetricData with 1,000 data of 30 dimensions each is the largest form that AWS takes.
_MAX_FIELDS = 200_000

# The deepest name is some `MetricData.member.1.StatisticValues.Sum`.
_MAX_PARTS = 32

_WRITER = XmlWriter(values.ISO8601)


class QueryProtocol(Protocol):
    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        form = _Fields()
        known = {
            _form_name(member, name).partition(".")[0]
            for name, member in operation.input_shape.members.items()
        }
        for name, text in _pairs(request):
            if name.partition(".")[0] in known:
                form.add(name, text)
        return _read_structure(operation.input_shape, form)

    def serialize(
        self,
        operation: OperationModel,
        members: Mapping[str, Any] | None,
        *,
        status: int | None = None,
        headers: HeaderList = (),
        request_id: str,
    ) -> Response:
        result = _result(operation.output_shape, members or {}, operation.name)
        metadata = element("ResponseMetadata", element("RequestId", escape(request_id)))
        namespace = operation.metadata.get("xmlNamespace")
        attributes = {"xmlns": namespace} if isinstance(namespace, str) else {}
        body = element(f"{operation.name}Response", result + metadata, attributes)
        bound = [("x-amzn-RequestId", request_id), ("Content-Type", "text/xml")]
        return Response(status or 200, merged_headers(bound, headers), body.encode())


class _Fields:
    """A form's fields as a tree along the dots of their names."""

    __slots__ = ("inner", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self.inner: dict[str, _Fields] = {}

    def add(self, name: str, text: str) -> None:
        parts = name.split(".", _MAX_PARTS)
        if len(parts) > _MAX_PARTS:
            raise _malformed("A parameter's name is nested too deeply.")
        node = self
        for part in parts:
            node = node.inner.setdefault(part, _Fields())
        node.text = text

    def at(self, path: str) -> "_Fields | None":
        """What stands below a name, which may have dots of its own."""
        node: _Fields | None = self
        for part in path.split("."):
            node = node.inner.get(part) if node else None
        return node

    def numbered(self, name: str) -> "list[_Fields]":
        """What stands below `1`, `2` … in order. Gaps are closed."""
        found: list[tuple[int, _Fields]] = []
        for index, fields in self.inner.items():
            if not (index.isascii() and index.isdigit() and len(index) < 10 and int(index) > 0):
                raise _malformed(f"{name}.{index[:20]} is not a list's index, which starts at 1.")
            found.append((int(index), fields))
        return [fields for _, fields in sorted(found, key=lambda pair: pair[0])]


def _pairs(request: Request) -> list[tuple[str, str]]:
    try:
        form = whole_body(request).decode("utf-8")
        joined = "&".join(part for part in (request.query, form) if part)
        return parse_qsl(joined, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise _malformed("The request body is not a valid form.") from error


def _read(shape: Shape, fields: _Fields, name: str) -> Any:
    if isinstance(shape, StructureShape):
        return _read_structure(shape, fields)
    if isinstance(shape, ListShape):
        return _read_list(shape, fields, name)
    if isinstance(shape, MapShape):
        return _read_map(shape, fields, name)
    try:
        return values.read(shape, fields.text or "")
    except ValueError as error:
        raise _malformed(f"The value of {name[:100]} is {error}.") from error


def _read_structure(shape: StructureShape, fields: _Fields) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for member_name, member in shape.members.items():
        name = _form_name(member, member_name)
        found = fields.at(name)
        if found is not None and _is_present(member, found):
            read[member_name] = _read(member, found, name)
    return read


def _is_present(shape: Shape, fields: _Fields) -> bool:
    return fields.text is not None or (
        bool(fields.inner) and isinstance(shape, StructureShape | ListShape | MapShape)
    )


def _read_list(shape: ListShape, fields: _Fields, name: str) -> list[Any]:
    """`Name.member.N`, or `Name.N` when flattened; `Name=` is the empty list."""
    inner = fields if shape.serialization.get("flattened") else fields.at(wire_name(shape.member, "member"))
    if inner is None:
        return []
    return [_read(shape.member, item, name) for item in inner.numbered(name)]


def _read_map(shape: MapShape, fields: _Fields, name: str) -> dict[str, Any]:
    inner = fields if shape.serialization.get("flattened") else fields.at("entry")
    read: dict[str, Any] = {}
    for entry in inner.numbered(name) if inner else ():
        key, item = entry.at(wire_name(shape.key, "key")), entry.at(wire_name(shape.value, "value"))
        if key is None or item is None:
            raise _malformed(f"An entry of {name[:100]} lacks its key or its value.")
        read[str(_read(shape.key, key, name))] = _read(shape.value, item, name)
    return read


def _form_name(shape: Shape, default: str) -> str:
    """A flattened list may be called after its items."""
    if isinstance(shape, ListShape) and shape.serialization.get("flattened"):
        return wire_name(shape.member, wire_name(shape, default))
    return wire_name(shape, default)


def _result(shape: StructureShape | None, members: Mapping[str, Any], path: str) -> str:
    content = _WRITER.content(present_members(shape, members, path), path)
    wrapper = shape.serialization.get("resultWrapper") if shape else None
    return element(wrapper, content) if isinstance(wrapper, str) else content


def _malformed(message: str) -> Fault:
    return Fault("MalformedInput", message)
