"""Lists: filters, sorting and paging, alike for all kinds.

A `NextToken` holds the position of the last item and a digest of the question, so a token presented with another
question is refused. A page begins behind that position whatever was inserted or deleted meanwhile.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clary.domain.faults import Fault, validation
from clary.domain.resources import Kind
from clary.store import PageQuery, Store, Summary
from clary.store.resources import Sort
from clary.wire.operations import Call

DEFAULT_RESULTS = 10

_SORTS: Mapping[str, Sort] = {"Name": "name", "CreationTime": "created", "Status": "status"}


def list_page(
    store: Store, call: Call, kind: Kind, params: Mapping[str, Any]
) -> tuple[list[Summary], dict[str, str]]:
    """The items of a page, and the `NextToken` member where there are more."""
    query = PageQuery(
        account=call.account,
        region=call.region,
        kind=kind.name,
        sort=_SORTS[params.get("SortBy", "CreationTime")],
        descending=params.get("SortOrder", "Descending") == "Descending",
        name_contains=params.get("NameContains", ""),
        status=params.get("StatusEquals", ""),
        created_before=params.get("CreationTimeBefore"),
        created_after=params.get("CreationTimeAfter"),
        modified_before=params.get("LastModifiedTimeBefore"),
        modified_after=params.get("LastModifiedTimeAfter"),
        limit=1,
    )
    limit = params.get("MaxResults", DEFAULT_RESULTS)
    question = _digest(query)
    if token := params.get("NextToken"):
        query = replace(query, after=_read_token(token, question))
    with store.read() as tx:
        items = tx.resources.page(replace(query, limit=limit + 1))
    if len(items) <= limit:
        return items, {}
    items = items[:limit]
    return items, {"NextToken": write_token(question, query.position(items[-1]))}


def write_token(question: str, position: tuple[str | int, ...]) -> str:
    content = json.dumps([question, *position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def read_token(token: str, question: str) -> tuple[str | int, ...]:
    """The position in a token. Raises a fault for what `write_token` never made for this question."""
    try:
        padded = token + "=" * (-len(token) % 4)
        content = json.loads(base64.b64decode(padded.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise _bad_token() from None
    if not (isinstance(content, list) and len(content) > 1 and content[0] == question):
        raise _bad_token()
    if not all(isinstance(part, str | int) and not isinstance(part, bool) for part in content):
        raise _bad_token()
    return tuple(content[1:])


def _read_token(token: str, question: str) -> tuple[str | int, ...]:
    position = read_token(token, question)
    expected = {"n": (str,), "c": (int, str), "s": (str, int, str)}[question[0]]
    if tuple(type(part) for part in position) != expected:
        raise _bad_token()
    if any(type(part) is int and abs(part) >= 1 << 62 for part in position if isinstance(part, int)):
        raise _bad_token()
    return position


def _digest(query: PageQuery) -> str:
    """The question without page size and position; its first letter says what order the position is in."""
    return query.sort[0] + hashlib.sha256(repr(replace(query, limit=1, after=None)).encode()).hexdigest()[:16]


def _bad_token() -> Fault:
    return validation("Invalid NextToken: it does not belong to this request.")
