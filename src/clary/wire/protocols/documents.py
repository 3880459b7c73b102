"""Shapes as documents, both ways: what JSON and CBOR share.

Either format decodes a body whole, to dictionaries, lists and scalars; those are held against the operation's shapes
here, and what no shape knows never reaches a handler. A format says how its blobs, times and floats look, and with
which words it refuses a value.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.protocols import values
from clary.wire.protocols.base import (
    MAX_DEPTH,
    Member,
    list_items,
    map_entries,
    present_members,
    wire_name,
)


class DocumentFormat(ABC):
    def __init__(self) -> None:
        self._scalars: Mapping[str, Callable[[Shape, Any], Any]] = {
            "string": self._string,
            "character": self._string,
            "integer": self._integer,
            "long": self._integer,
            "float": self._float,
            "double": self._float,
            "boolean": self._boolean,
            "blob": self.read_blob,
            "timestamp": self.read_timestamp,
        }

    # What a format says

    @abstractmethod
    def read_blob(self, shape: Shape, value: Any) -> bytes: ...

    @abstractmethod
    def read_timestamp(self, shape: Shape, value: Any) -> datetime: ...

    @abstractmethod
    def write_scalar(self, shape: Shape, scalar: values.Scalar, path: str) -> Any:
        """A checked scalar of an answer in the document's own types."""

    @abstractmethod
    def mismatch(self, shape: Shape, value: Any) -> Fault:
        """The refusal of a value that is not what its shape says."""

    def is_number(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def named_float(self, value: Any) -> float | None:
        """A float that the format writes as something else than a number."""
        return None

    # Reading

    def read_structure(self, shape: StructureShape, value: Any, depth: int = 0) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.mismatch(shape, value)
        read = {}
        for name, member in shape.members.items():
            item = value.get(wire_name(member, name))
            if item is not None:
                read[name] = self._read(member, item, depth + 1)
        return read

    def _read(self, shape: Shape, value: Any, depth: int) -> Any:
        """One value that is not null."""
        if depth > MAX_DEPTH:
            raise malformed("The request body is nested too deeply.")
        if isinstance(shape, StructureShape):
            return self.read_structure(shape, value, depth)
        if isinstance(shape, ListShape):
            if not isinstance(value, list):
                raise self.mismatch(shape, value)
            return [None if item is None else self._read(shape.member, item, depth + 1) for item in value]
        if isinstance(shape, MapShape):
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise self.mismatch(shape, value)
            return {
                key: None if item is None else self._read(shape.value, item, depth + 1)
                for key, item in value.items()
            }
        return self._scalars[shape.type_name](shape, value)

    def _string(self, shape: Shape, value: Any) -> str:
        if not isinstance(value, str):
            raise self.mismatch(shape, value)
        return value

    def _integer(self, shape: Shape, value: Any) -> int:
        if not self.is_number(value) or (isinstance(value, float) and not value.is_integer()):
            raise self.mismatch(shape, value)
        try:
            return values.in_range(shape, int(value))
        except ValueError as error:
            raise self.mismatch(shape, value) from error

    def _float(self, shape: Shape, value: Any) -> float:
        if (named := self.named_float(value)) is not None:
            return named
        if not self.is_number(value):
            raise self.mismatch(shape, value)
        try:
            return float(value)
        except OverflowError as error:
            raise self.mismatch(shape, value) from error

    def _boolean(self, shape: Shape, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.mismatch(shape, value)
        return value

    # Writing

    def write_members(self, members: Iterable[Member], path: str) -> dict[str, Any]:
        """Checked members of an answer."""
        return {
            wire_name(shape, name): self.write(shape, item, f"{path}.{name}") for name, shape, item in members
        }

    def write(self, shape: Shape, value: object, path: str) -> Any:
        if isinstance(shape, StructureShape):
            return self.write_members(present_members(shape, value, path), path)
        if isinstance(shape, ListShape):
            return [self.write(shape.member, item, where) for where, item in list_items(value, path)]
        if isinstance(shape, MapShape):
            return {
                key: self.write(shape.value, item, where) for where, key, item in map_entries(value, path)
            }
        return self.write_scalar(shape, values.checked(shape, value, path), path)


def malformed(message: str) -> Fault:
    return Fault("SerializationException", message)
