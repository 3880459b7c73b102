"""How records become columns: JSON text by msgspec, times as microseconds."""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from clary.links.decoding import decode_json

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def decode(text: str, type_: type[T]) -> T:
    return decode_json(text, type_)


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
