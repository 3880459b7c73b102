"""What a set of tags may be, and how it travels: in an XML body, or as a query in a header. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from clary.domain.faults import Fault
from clary.services.s3.errors import invalid_argument

MOST_OF_AN_OBJECT = 10
MOST_OF_A_BUCKET = 50

_LONGEST_KEY = 128
_LONGEST_VALUE = 256
_MARKS = frozenset(" +-=._:/@")


def tags_in_header(text: str) -> dict[str, str]:
    """`a=1&b=2`, percent-encoded, as x-amz-tagging has it."""
    if not text:
        return {}
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise invalid_argument(
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag"
            " name duplicates.",
            "x-amz-tagging",
            text,
        ) from None
    return _checked(pairs, MOST_OF_AN_OBJECT, "Object")


def tags_in_set(tag_set: Sequence[Mapping[str, Any]], *, of_bucket: bool = False) -> dict[str, str]:
    """The tags of a Tagging structure."""
    pairs = [(tag["Key"], tag["Value"]) for tag in tag_set]
    return (
        _checked(pairs, MOST_OF_A_BUCKET, "Bucket")
        if of_bucket
        else _checked(pairs, MOST_OF_AN_OBJECT, "Object")
    )


def tag_set(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _checked(pairs: Sequence[tuple[str, str]], most: int, noun: str) -> dict[str, str]:
    if len(pairs) > most:
        raise Fault("BadRequest", f"{noun} tags cannot be greater than {most}")
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not key or len(key) > _LONGEST_KEY or not _is_plain(key):
            raise _invalid("The TagKey you have provided is invalid", key, value)
        if len(value) > _LONGEST_VALUE or not _is_plain(value):
            raise _invalid("The TagValue you have provided is invalid", key, value)
        if key.lower().startswith("aws:"):
            raise _invalid("System tags cannot be added/updated by requester", key, value)
        if key in tags:
            raise _invalid("Cannot provide multiple Tags with the same key", key, value)
        tags[key] = value
    return tags


def _is_plain(text: str) -> bool:
    return all(letter.isalnum() or letter.isspace() or letter in _MARKS for letter in text)


def _invalid(message: str, key: str, value: str) -> Fault:
    return Fault("InvalidTag", message, members={"TagKey": key, "TagValue": value})
