"""XML as far as AWS uses it: reading small untrusted documents into nodes, writing elements.

Documents come from anybody. A document type or an entity declaration is refused (they are how a few bytes become
gigabytes, or a local file), and so is what is nested too deep or has too many elements.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from clary.wire.protocols.base import MAX_DEPTH

PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'

# 10,000 parts or 1,000 keys with some elements each are the most that AWS takes.
_MAX_ELEMENTS = 200_000

_NAMESPACE_SEPARATOR = "\n"

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
_TO_ESCAPE = re.compile('[&<>"\r\n\t\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')


class MarkupError(Exception):
    """A document that is not well-formed, or that nobody needs to send."""


@dataclass(slots=True)
class Node:
    """One element; names are without their namespace."""

    name: str
    attributes: Mapping[str, str]
    children: list["Node"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def named(self, name: str) -> Iterator["Node"]:
        return (child for child in self.children if child.name == name)


def read_document(body: bytes) -> Node:
    """The root of a document in UTF-8, whatever it declares."""
    reader = _Reader()
    try:
        reader.parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as error:
        raise MarkupError(str(error)) from error
    if reader.root is None:
        raise MarkupError("no element")
    return reader.root


def element(name: str, content: str, attributes: Mapping[str, str] | None = None) -> str:
    """An element around content that is markup already."""
    opening = "".join(f' {key}="{escape(value)}"' for key, value in (attributes or {}).items())
    return f"<{name}{opening}>{content}</{name}>" if content else f"<{name}{opening}/>"


def escape(text: str) -> str:
    """`text` as the content of an element or an attribute.

    A control character that XML 1.0 cannot hold becomes a reference all the same, as S3 answers it: clients that expect
    such keys ask for them URL-encoded.
    """
    return _TO_ESCAPE.sub(_escaped, text)


class _Reader:
    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._elements = 0
        self.parser = expat.ParserCreate("utf-8", _NAMESPACE_SEPARATOR)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _refuse(self, *_: object) -> None:
        raise MarkupError("a document type is not accepted")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > _MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise MarkupError("the document is too large or nested too deeply")
        node = Node(_local(name), {_local(key): value for key, value in attributes.items()})
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _characters(self, data: str) -> None:
        self._open[-1].texts.append(data)


def _local(name: str) -> str:
    return name.rpartition(_NAMESPACE_SEPARATOR)[2]


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPES.get(character) or f"&#x{ord(character):x};"
