"""The `Condition` element of policies: operators over what is known about a request.

    {"StringLike": {"aws:username": ["ann*", "bob"]}, "Bool": {"aws:SecureTransport": "true"}}

Operators and keys are joined by AND, the values of one key by OR (by NOR under a negated operator). A key that the
request does not have makes an operator false, a negated one and an `...IfExists` true; `Null` asks for presence.
`ForAllValues:` holds for no value, `ForAnyValue:` does not.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

Conditions = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Operator, key and values, as the policy says them."""

Context = Mapping[str, Sequence[str]]
"""What is known about a request: key in lower case, and its values."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class UnknownOperator(ValueError):
    """No operator has this name."""


def check_operator(operator: str) -> None:
    """Raises UnknownOperator."""
    _operator(operator)


def holds(conditions: Conditions, context: Context, *, with_variables: bool = True) -> bool:
    """Whether all conditions hold of a request. `with_variables`: `${aws:username}` means the caller's name."""
    return all(_holds(*condition, context, with_variables) for condition in conditions)


def substitute(text: str, context: Context) -> str | None:
    """The text as a wildcard pattern, its policy variables replaced; None when one of them is not known."""
    pieces, end = [], 0
    for found in _VARIABLE.finditer(text):
        name, _, fallback = found[1].partition(",")
        value = found[1] if found[1] in ("*", "?", "$") else _one(context, name.strip(), fallback)
        if value is None:
            return None
        pieces += [text[end : found.start()], value.translate(_MEANT_LITERALLY)]
        end = found.end()
    return "".join((*pieces, text[end:]))


def matches(pattern: str, text: str, *, ignoring_case: bool = False) -> bool:
    """Whether `*` (anything, `/` and `:` too) and `?` (one character) make the text of the pattern."""
    return _compiled(pattern, ignoring_case).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str, ignoring_case: bool) -> re.Pattern[str]:
    parts = re.split(r"(\*+|\?)", pattern)
    text = "".join(_WILDCARDS.get(part[:1]) or re.escape(_literal(part)) for part in parts)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignoring_case else 0))


_WILDCARDS = {"*": ".*", "?": "."}
# Wildcards that come with a variable's value are meant literally: they travel as characters no policy can hold.
_MEANT_LITERALLY = str.maketrans("*?", "\ue000\ue001")
_AS_MEANT = str.maketrans("\ue000\ue001", "*?")


def _one(context: Context, name: str, fallback: str) -> str | None:
    values = context.get(name.lower(), ())
    return values[0] if len(values) == 1 else fallback.strip().strip("'") or None


Test = Callable[[str, str], bool]
"""The request's value and the policy's."""


def _holds(operator: str, key: str, wanted: tuple[str, ...], context: Context, with_variables: bool) -> bool:
    quantifier, test, is_negated, if_exists = _operator(operator)
    present = context.get(key.lower())
    if operator.lower() == "null":
        return any((present is None) == (value.lower() == "true") for value in wanted)
    if present is None or (not present and quantifier == ""):
        return quantifier == "forallvalues" or is_negated or if_exists
    if with_variables:
        wanted = tuple(text for value in wanted if (text := substitute(value, context)) is not None)

    def holds_of(value: str) -> bool:
        return any(test(value, one) for one in wanted) != is_negated

    if quantifier == "foranyvalue":
        return any(holds_of(value) for value in present)
    if quantifier == "" and not is_negated:
        return any(holds_of(value) for value in present)
    return all(holds_of(value) for value in present)


@lru_cache(maxsize=256)
def _operator(name: str) -> tuple[str, Test, bool, bool]:
    """Quantifier, test, whether its result is turned round, and whether an absent key is enough."""
    quantifier, colon, rest = name.lower().rpartition(":")
    if colon and quantifier not in ("forallvalues", "foranyvalue"):
        raise UnknownOperator(name)
    if_exists = rest.endswith("ifexists")
    base = rest.removesuffix("ifexists")
    if base in _TESTS:
        return quantifier, _TESTS[base], False, if_exists
    for positive, negative in _NEGATED.items():
        if base == negative:
            return quantifier, _TESTS[positive], True, if_exists
    raise UnknownOperator(name)


def _number(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return False

    return test


def _date(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(_epoch(value), _epoch(wanted))
        except (ValueError, OverflowError):
            return False

    return test


def _epoch(text: str) -> float:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _in_network(value: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def _same_bytes(value: str, wanted: str) -> bool:
    try:
        return base64.b64decode(value, validate=True) == base64.b64decode(wanted, validate=True)
    except binascii.Error:
        return False


def _arn_like(value: str, wanted: str) -> bool:
    """Like wildcards, but each of an ARN's six parts by itself."""
    parts, patterns = value.split(":", 5), wanted.split(":", 5)
    if len(parts) != 6 or len(patterns) != 6:
        return matches(wanted, value) if wanted == "*" else False
    return all(matches(pattern, part) for pattern, part in zip(patterns, parts, strict=True))


def _literal(pattern: str) -> str:
    """The text of a pattern without wildcards."""
    return pattern.translate(_AS_MEANT)


_TESTS: Mapping[str, Test] = {
    "stringequals": lambda value, wanted: value == _literal(wanted),
    "stringequalsignorecase": lambda value, wanted: value.lower() == _literal(wanted).lower(),
    "stringlike": lambda value, wanted: matches(wanted, value),
    "numericequals": _number(lambda value, wanted: value == wanted),
    "numericlessthan": _number(lambda value, wanted: value < wanted),
    "numericlessthanequals": _number(lambda value, wanted: value <= wanted),
    "numericgreaterthan": _number(lambda value, wanted: value > wanted),
    "numericgreaterthanequals": _number(lambda value, wanted: value >= wanted),
    "dateequals": _date(lambda value, wanted: value == wanted),
    "datelessthan": _date(lambda value, wanted: value < wanted),
    "datelessthanequals": _date(lambda value, wanted: value <= wanted),
    "dategreaterthan": _date(lambda value, wanted: value > wanted),
    "dategreaterthanequals": _date(lambda value, wanted: value >= wanted),
    "bool": lambda value, wanted: value.lower() == wanted.lower(),
    "binaryequals": _same_bytes,
    "ipaddress": _in_network,
    "arnequals": _arn_like,
    "arnlike": _arn_like,
    "null": lambda value, wanted: False,  # presence is asked before values are looked at
}

_NEGATED = {
    "stringequals": "stringnotequals",
    "stringequalsignorecase": "stringnotequalsignorecase",
    "stringlike": "stringnotlike",
    "numericequals": "numericnotequals",
    "dateequals": "datenotequals",
    "ipaddress": "notipaddress",
    "arnequals": "arnnotequals",
    "arnlike": "arnnotlike",
}
