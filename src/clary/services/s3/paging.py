"""What all listings share: how long a page is, how it is continued, and how names are told."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from clary.services.s3.errors import invalid_argument

LONGEST_PAGE = 1000


class NameEncoder:
    """Names percent-encoded when that was asked for, because XML cannot hold every character."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        encoding = params.get("EncodingType", "")
        if encoding not in ("", "url"):
            raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", encoding)
        self._encodes = encoding == "url"

    def __call__(self, name: str) -> str:
        return quote(name, safe="/") if self._encodes else name


def page_limit(params: Mapping[str, Any], member: str, argument: str) -> int:
    value: int = params.get(member, LONGEST_PAGE)
    if not 0 <= value <= 2**31 - 1:
        raise invalid_argument(
            f"Argument {argument} must be an integer between 0 and 2147483647", argument, str(value)
        )
    return min(value, LONGEST_PAGE)


def encode_token(name: str) -> str:
    """A token to go on behind this name."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def decode_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise invalid_argument("The continuation token provided is incorrect", "continuation-token") from None
