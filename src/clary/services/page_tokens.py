"""Continuation tokens that hold where a listing stopped, and belong to the query that made them.

A token is opaque to clients, holds no secret, and nothing has to be remembered for it.
"""

import base64
import binascii
import hashlib
import json
from typing import Any


def make(query: object, position: object) -> str:
    """A token for going on at `position` (JSON values) in the listing that `query` (anything JSON) asked for."""
    payload = json.dumps([_digest(query), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")


def read(token: str, query: object) -> Any:
    """The position in a token; None when it is none of ours or belongs to another query."""
    try:
        padded = token + "=" * (-len(token) % 4)
        payload = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    match payload:
        case [digest, position] if digest == _digest(query):
            return position
    return None


def _digest(query: object) -> str:
    text = json.dumps(query, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
