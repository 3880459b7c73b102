"""Filter patterns for unstructured text: `a b` both, `?a ?b` either, `-a` without, `"some words"` as they stand.

Terms match anywhere in a message, with case. Patterns for JSON, for space-delimited fields and regular expressions
are refused by name.
"""

import re
from collections.abc import Callable

from clary.domain.faults import Fault, not_supported
from clary.services.logs.requests import invalid

Filter = Callable[[str], bool]

_TERM = re.compile(r'(?![?-](?:\s|$))([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?:\s+|$)')


def parse(pattern: str) -> Filter:
    """Whether a message matches. Alternatives count only in a pattern of nothing else, as CloudWatch documents."""
    text = pattern.strip()
    _refuse_other_kinds(text)
    required: list[str] = []
    alternatives: list[str] = []
    excluded: list[str] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise _bad(pattern)
        term = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        {"": required, "?": alternatives, "-": excluded}[match[1]].append(term)
        position = match.end()
    if alternatives and not required and not excluded:
        return lambda message: any(term in message for term in alternatives)
    return lambda message: (
        all(term in message for term in required) and not any(term in message for term in excluded)
    )


def _refuse_other_kinds(text: str) -> None:
    if text.startswith("{"):
        raise not_supported("The JSON filter pattern")
    if text.startswith("["):
        raise not_supported("The space-delimited filter pattern")
    if re.search(r"(?:^|\s)[?-]?%", text):
        raise not_supported("The regular expression filter pattern")


def _bad(pattern: str) -> Fault:
    return invalid(f"Invalid filter pattern: {pattern}")
