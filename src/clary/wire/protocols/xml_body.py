"""Shapes as XML: written for REST-XML and query answers, read from REST-XML bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from clary.wire.protocols import values
from clary.wire.protocols.base import Member, ShapeError, list_items, map_entries, present_members, wire_name
from clary.wire.protocols.markup import MarkupError, Node, element, escape


class XmlWriter:
    """Writes checked answers; how times look differs between services."""

    def __init__(self, timestamp_format: str) -> None:
        self._timestamp_format = timestamp_format

    def content(self, members: Iterable[Member], path: str) -> str:
        """Checked members of a structure, without an element around them."""
        return "".join(
            self._member(shape, _member_name(shape, name), item, f"{path}.{name}")
            for name, shape, item in members
            if not shape.serialization.get("xmlAttribute")
        )

    def write(self, shape: Shape, name: str, value: object, path: str) -> str:
        """One value in an element called `name`."""
        attributes = _namespace(shape)
        if isinstance(shape, StructureShape):
            members = list(present_members(shape, value, path))
            return element(name, self.content(members, path), attributes | _attributes(members, path))
        if isinstance(shape, ListShape):
            return element(name, self._items(shape, _item_name(shape), value, path), attributes)
        if isinstance(shape, MapShape):
            return element(name, self._entries(shape, "entry", value, path), attributes)
        text = values.written(shape, value, path, self._timestamp_format)
        return element(name, escape(text), attributes)

    def _member(self, shape: Shape, name: str, value: object, path: str) -> str:
        if shape.serialization.get("flattened") and isinstance(shape, ListShape):
            return self._items(shape, name, value, path)
        if shape.serialization.get("flattened") and isinstance(shape, MapShape):
            return self._entries(shape, name, value, path)
        return self.write(shape, name, value, path)

    def _items(self, shape: ListShape, name: str, value: object, path: str) -> str:
        return "".join(self.write(shape.member, name, item, where) for where, item in list_items(value, path))

    def _entries(self, shape: MapShape, name: str, value: object, path: str) -> str:
        key_name, value_name = wire_name(shape.key, "key"), wire_name(shape.value, "value")
        return "".join(
            element(
                name,
                element(key_name, escape(key)) + self.write(shape.value, value_name, item, where),
            )
            for where, key, item in map_entries(value, path)
        )


def decode(shape: Shape, node: Node) -> Any:
    """The value in a node of a request. MarkupError when it is not what the shape says."""
    if isinstance(shape, StructureShape):
        return decode_structure(shape, node)
    if isinstance(shape, ListShape):
        return [decode(shape.member, child) for child in node.named(_item_name(shape))]
    if isinstance(shape, MapShape):
        return _decode_entries(shape, list(node.named("entry")))
    if node.children:
        raise MarkupError(f"{node.name} holds no elements")
    try:
        return values.read(shape, node.text)
    except ValueError as error:
        raise MarkupError(f"{node.name}: {error}") from error


def decode_structure(shape: StructureShape, node: Node) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    by_name: dict[str, list[Node]] = {}
    for child in node.children:
        by_name.setdefault(child.name, []).append(child)
    for name, member in shape.members.items():
        if member.serialization.get("location"):
            continue
        if member.serialization.get("xmlAttribute"):
            attribute = node.attributes.get(wire_name(member, name).rpartition(":")[2])
            if attribute is not None:
                decoded[name] = attribute
            continue
        found = by_name.get(_member_name(member, name))
        if found:
            decoded[name] = _decode_member(member, found)
    return decoded


def _decode_member(member: Shape, found: Sequence[Node]) -> Any:
    if member.serialization.get("flattened") and isinstance(member, ListShape):
        return [decode(member.member, node) for node in found]
    if member.serialization.get("flattened") and isinstance(member, MapShape):
        return _decode_entries(member, found)
    if len(found) > 1:
        raise MarkupError(f"{found[0].name} stands twice")
    return decode(member, found[0])


def _decode_entries(shape: MapShape, entries: Sequence[Node]) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    for entry in entries:
        keys = list(entry.named(wire_name(shape.key, "key")))
        items = list(entry.named(wire_name(shape.value, "value")))
        if len(keys) != 1 or len(items) != 1:
            raise MarkupError(f"{entry.name} needs one key and one value")
        decoded[keys[0].text] = decode(shape.value, items[0])
    return decoded


def _member_name(shape: Shape, default: str) -> str:
    """The element of a member; a flattened list may be called after its items."""
    if isinstance(shape, ListShape) and shape.serialization.get("flattened"):
        return wire_name(shape.member, wire_name(shape, default))
    return wire_name(shape, default)


def _item_name(shape: ListShape) -> str:
    return wire_name(shape.member, "member")


def _attributes(members: Iterable[Member], path: str) -> dict[str, str]:
    return {
        wire_name(shape, name): values.written(shape, item, f"{path}.{name}")
        for name, shape, item in members
        if shape.serialization.get("xmlAttribute")
    }


def _namespace(shape: Shape) -> dict[str, str]:
    namespace = shape.serialization.get("xmlNamespace")
    if not namespace:
        return {}
    if not isinstance(namespace, dict):
        raise ShapeError(shape.name, "an XML namespace that is not understood")
    prefix = namespace.get("prefix")
    return {f"xmlns:{prefix}" if prefix else "xmlns": namespace["uri"]}
