"""What was seen, in few words: values of time lines and deployment records as a person reads them."""

import re
from collections.abc import Mapping

_SHOWN = 3
_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")


def told(value: object) -> str:
    """Nothing for what has no value. Of a long list the first items, of an id the first digits: enough for a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_short(name)} {told(item)}" for name, item in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
        return ", ".join(told(item) for item in value[:_SHOWN]) + more
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else _short(str(value))


def _short(text: str) -> str:
    return _ID.sub(r"\1", text)
