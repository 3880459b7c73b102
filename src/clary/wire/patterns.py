"""The models' patterns, which are written for Java's regular expressions, as Python's.

A value must match as a whole. Python's matcher backtracks, so a value has a length beyond which no pattern is tried on
it, and the few patterns on which a short value can take for ever are replaced by ones that mean the same.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator

# Longer values of shapes that state no maximum are accepted without a look at their pattern.
_MAX_LENGTH = 1 << 16

_ASCII_CLASSES = {
    "ASCII": "\\x00-\\x7f",
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Graph": "!-~",
    "Lower": "a-z",
    "Print": " -~",
    "Space": " \\t-\\r",
    "Upper": "A-Z",
    "XDigit": "0-9a-fA-F",
}

# Patterns that repeat what repeats, by ones of the same language that do not.
_REPLACED = {
    r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?": r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    r"https://([.\-_a-zA-Z0-9]+/?){3,1016}": (
        r"https://(?=(?:/?[.\-_a-zA-Z0-9]){3})[.\-_a-zA-Z0-9]+(?:/[.\-_a-zA-Z0-9]+){0,1015}/?"
    ),
    r".*(?:[ \r\n\t].*)*": r"(?s:.*)",
    r".*(?:[ \r\n\t].*)*.*": r"(?s:.*)",
}

_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_QUANTIFIED_END = re.compile(r"\$\{\d+(,\d*)?\}")
_TOKEN = re.compile(r"\\p\{(?P<property>\w+)\}|\\.|.", re.DOTALL)
_SHORTHANDS = frozenset({"\\w", "\\d", "\\s", "\\W", "\\D", "\\S"})
_DOUBLED = frozenset("-&~|")


def fits(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches."""
    return len(value) > _MAX_LENGTH or compiled(pattern).fullmatch(value) is not None


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A model's pattern. Only patterns of the models come here, so there is an end to what is kept."""
    return re.compile(translate(_REPLACED.get(pattern, pattern)))


def translate(pattern: str) -> str:
    """A Java pattern as a Python one."""
    pattern = _SURROGATES.sub(_joined, pattern)
    return "".join(_translated(_QUANTIFIED_END.sub("$", pattern)))


def _translated(pattern: str) -> Iterator[str]:
    in_class = False
    previous = ""
    for match in _TOKEN.finditer(pattern):
        token, name = match.group(), match.group("property")
        if name is not None:
            yield _property(name) if in_class else f"[{_property(name)}]"
        elif not in_class:
            yield "\\Z" if token == "\\z" else token
            in_class = token == "["
        elif token == "]":
            yield token
            in_class = False
        elif token == "[" or (token == "-" and (previous in _SHORTHANDS or previous.startswith("\\p"))):
            # Python would warn of a set in a set, and takes `\w-x` for a range where Java takes a hyphen.
            yield "\\" + token
        elif token in _DOUBLED and token == previous:
            yield "\\" + token
        else:
            yield token
        previous = token


@functools.cache
def _property(name: str) -> str:
    """The inside of a character class for a Unicode category or a class of POSIX."""
    if name in _ASCII_CLASSES:
        return _ASCII_CLASSES[name]
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _ranges(name))


def _ranges(category: str) -> Iterator[tuple[int, int]]:
    first: int | None = None
    for point in range(sys.maxunicode + 1):
        is_inside = unicodedata.category(chr(point)).startswith(category)
        if is_inside and first is None:
            first = point
        elif not is_inside and first is not None:
            yield first, point - 1
            first = None
    if first is not None:
        yield first, sys.maxunicode


def _joined(match: re.Match[str]) -> str:
    high, low = (int(group, 16) for group in match.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
