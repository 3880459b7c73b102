"""Text into types, from any thread.

msgspec gathers what it must know of a type when something is first decoded into it, and other threads that decode into
the same type meanwhile find that knowledge half made and crash the process (seen with msgspec 0.22). So every type is
made known under one lock, once, and everything that decodes into a type comes through here.
"""

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder of JSON into that type; the same one each time."""
    found = _decoders.get(kind)
    if found is None:
        with _lock:
            found = _decoders.get(kind)
            if found is None:
                found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def decode_json(text: bytes | str, kind: type[T]) -> T:
    """Raises `msgspec.DecodeError`, of which `msgspec.ValidationError` is one."""
    return decoder(kind).decode(text)


def convert(value: object, kind: type[T]) -> T:
    """Plain values, as JSON has them, into that type. Raises `msgspec.ValidationError`."""
    decoder(kind)
    return msgspec.convert(value, kind)
