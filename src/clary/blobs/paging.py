"""Listing with a delimiter: keys in order, and what they share up to a delimiter rolled up into one name.

Pure: it draws rows from iterators, and asks for a new one where a common prefix ends, so what lies below that
prefix is never looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Rolled(Generic[T]):
    items: list[T] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    last: bytes | None = None  # the last name given, key or prefix, when there is more


def roll_up(
    rows: Iterator[tuple[bytes, T]],
    seek: Callable[[bytes], Iterator[tuple[bytes, T]]],
    *,
    prefix: bytes,
    delimiter: bytes,
    skip: bytes,
    limit: int,
) -> Rolled[T]:
    """One page. `rows` are in order of key, `seek` gives them from a key on; `skip` is the prefix given before."""
    found: Rolled[T] = Rolled()
    last = b""
    while True:
        row = next(rows, None)
        if row is None or not row[0].startswith(prefix):
            return found
        key, item = row
        common = _common_prefix(key, prefix, delimiter)
        if common is not None and common == skip:
            rows = _behind(common, seek)
            continue
        if len(found.items) + len(found.prefixes) == limit:
            found.last = last
            return found
        if common is None:
            found.items.append(item)
            last = key
        else:
            found.prefixes.append(common)
            last = common
            rows = _behind(common, seek)


def first_behind(prefix: bytes) -> bytes | None:
    """The smallest key greater than everything that begins with `prefix`; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    end = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if end < 0 else key[: end + len(delimiter)]


def _behind(prefix: bytes, seek: Callable[[bytes], Iterator[tuple[bytes, T]]]) -> Iterator[tuple[bytes, T]]:
    start = first_behind(prefix)
    return iter(()) if start is None else seek(start)
