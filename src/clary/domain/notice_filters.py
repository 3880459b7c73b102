"""Filter policies: which notices a subscriber gets, by their attributes.

Source: SNS Developer Guide, subscription filter policies. Every key of a policy must match, by any of its conditions:
a value, a prefix, anything-but, a numeric range, or whether the attribute exists.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clary.domain.notices import Attribute

MOST_KEYS = 5
MOST_COMBINATIONS = 150
MOST_BYTES = 256 << 10

Value = str | float | bool | None

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}
_OPERATORS = frozenset(("prefix", "anything-but", "numeric", "exists"))
_NOT_BUILT = frozenset(("suffix", "cidr", "equals-ignore-case", "wildcard"))


class BadFilter(Exception):
    """The policy cannot be used; the message says why."""


class FilterNotBuilt(BadFilter):
    """It is a policy on AWS, and this server does not know that part of it."""


Policy = Mapping[str, Sequence[Any]]


def parse_filter(text: str) -> Policy:
    """Raises `BadFilter`."""
    try:
        policy = json.loads(text)
    except ValueError as error:
        raise BadFilter(f"failed to parse JSON: {error}") from error
    if not isinstance(policy, dict):
        raise BadFilter("filter policy is not an object")
    if len(policy) > MOST_KEYS or len(text) > MOST_BYTES:
        raise BadFilter(f"a filter policy has at most {MOST_KEYS} keys")
    combinations = 1
    for key, conditions in policy.items():
        if key.startswith("$"):
            raise FilterNotBuilt(f"the operator {key} of a filter policy")
        if isinstance(conditions, dict):
            raise BadFilter(f'"{key}" must be an array; nested policies are for the scope MessageBody')
        if not isinstance(conditions, list) or not conditions:
            raise BadFilter(f'"{key}" must be an array with at least one condition')
        combinations *= len(conditions)
        for condition in conditions:
            _check(key, condition)
    if combinations > MOST_COMBINATIONS:
        raise BadFilter(f"it has more than {MOST_COMBINATIONS} combinations of conditions")
    return policy


def accepts(policy: Policy, attributes: Mapping[str, Attribute]) -> bool:
    return all(
        any(_holds(condition, _values(attributes.get(key))) for condition in conditions)
        for key, conditions in policy.items()
    )


def _check(key: str, condition: object) -> None:
    if condition is None or isinstance(condition, str | bool | int | float):
        return
    if not isinstance(condition, dict) or len(condition) != 1:
        raise BadFilter(f'"{key}" has a condition that is neither a value nor an object with one operator')
    ((operator, operand),) = condition.items()
    if operator in _NOT_BUILT:
        raise FilterNotBuilt(f"the operator {operator} of a filter policy")
    if operator not in _OPERATORS:
        raise BadFilter(f"unrecognized match type {operator}")
    if operator == "exists" and not isinstance(operand, bool):
        raise BadFilter("exists must be true or false")
    if operator == "prefix" and not isinstance(operand, str):
        raise BadFilter("prefix must be a string")
    if operator == "numeric":
        _check_numeric(operand)
    if operator == "anything-but":
        _check_anything_but(operand)


def _check_numeric(operand: object) -> None:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise BadFilter("numeric must be an array of one or two comparisons")
    for comparison, bound in zip(operand[::2], operand[1::2], strict=True):
        if comparison not in _COMPARISONS:
            raise BadFilter(f"unrecognized numeric range operator {comparison}")
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise BadFilter("a numeric comparison must be with a number")


def _check_anything_but(operand: object) -> None:
    if isinstance(operand, dict):
        for operator in operand:
            if operator != "prefix":
                raise FilterNotBuilt(f"anything-but with {operator} in a filter policy")
        if not all(isinstance(value, str) for value in operand.values()):
            raise BadFilter("prefix must be a string")
        return
    for value in operand if isinstance(operand, list) else [operand]:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadFilter("anything-but must name strings or numbers")


def _values(attribute: Attribute | None) -> list[Value] | None:
    """What an attribute holds, for a filter; None where there is none. A binary one matches nothing."""
    if attribute is None:
        return None
    kind = attribute.type.split(".")[0]
    if attribute.type == "String.Array":
        try:
            found = json.loads(attribute.value)
        except ValueError:
            return [attribute.value]
        return found if isinstance(found, list) else [found]
    if kind == "Number":
        return [float(attribute.value)]
    return [attribute.value] if kind == "String" else []


def _holds(condition: Any, values: list[Value] | None) -> bool:
    if isinstance(condition, dict) and "exists" in condition:
        return (values is not None) is condition["exists"]
    return any(_matches(condition, value) for value in values or ())


def _matches(condition: Any, value: Value) -> bool:
    if not isinstance(condition, dict):
        return _same(condition, value)
    ((operator, operand),) = condition.items()
    if operator == "prefix":
        return isinstance(value, str) and value.startswith(operand)
    if operator == "numeric":
        return (
            _is_number(value)
            and all(
                _COMPARISONS[comparison](value, bound)  # type: ignore[arg-type]
                for comparison, bound in zip(operand[::2], operand[1::2], strict=True)
            )
        )
    if isinstance(operand, dict):
        return not (isinstance(value, str) and value.startswith(operand["prefix"]))
    return not any(_same(each, value) for each in (operand if isinstance(operand, list) else [operand]))


def _same(wanted: Value, value: Value) -> bool:
    """1 and 1.0 are the same; 1 and True, and 1 and "1", are not."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return wanted is value
    if _is_number(wanted) != _is_number(value):
        return False
    return wanted == value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
