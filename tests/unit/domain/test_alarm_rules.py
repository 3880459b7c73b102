"""The rule language of composite alarms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.alarm_rules import Asks, BadRule, Both, Constant, Not, Rule, holds, names_in, parse_rule

STATES = {"a": "ALARM", "b": "OK", "c": "INSUFFICIENT_DATA"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('ALARM("a")', True),
        ("ALARM(a)", True),
        ("ALARM ( b )", False),
        ('ALARM("a") AND NOT OK("b")', False),
        ('NOT OK("a") AND OK("b")', True),
        ('ALARM("b") OR INSUFFICIENT_DATA("c")', True),
        ('ALARM("b") AND ALARM("b") OR ALARM("a")', True),
        ('ALARM("b") AND (ALARM("b") OR ALARM("a"))', False),
        ("TRUE AND NOT FALSE", True),
        ('ALARM("gone") OR OK("gone") OR INSUFFICIENT_DATA("gone")', False),
        ('ALARM("arn:aws:cloudwatch:eu-central-1:123456789012:alarm:a")', True),
    ],
)
def test_L03_a_rule_holds_or_not(rule: str, expected: bool) -> None:
    assert holds(parse_rule(rule), STATES.get) is expected


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "too early"),
        ("ALARM", "'(' is expected"),
        ('ALARM("a" ', "')' is expected"),
        ('ALARM("a")) ', "not expected"),
        ('alarm("a")', "is not one of"),
        ('ALARM("a") XOR OK("b")', "not expected"),
        ('ALARM("a', "does not end"),
        ("ALARM()", "name is expected"),
        ("(" * 5000 + "TRUE" + ")" * 5000, "nests"),
        ("NOT " * 2000 + "TRUE", "nests"),
        ('AT_LEAST(1, ALARM, ("a"))', "AT_LEAST is not supported"),
        (" OR ".join(f"ALARM(a{number})" for number in range(101)), "at most 100 alarms"),
        (" " * 11000 + "TRUE", "at most 10240 characters"),
    ],
)
def test_L03_a_rule_that_cannot_be_read_says_why(rule: str, why: str) -> None:
    with pytest.raises(BadRule, match=why.replace("(", r"\(").replace(")", r"\)")):
        parse_rule(rule)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=6).filter(
    lambda name: not name.startswith("arn:")
)
RULES: st.SearchStrategy[Rule] = st.recursive(
    st.builds(Constant, st.booleans())
    | st.builds(Asks, st.sampled_from(["ALARM", "OK", "INSUFFICIENT_DATA"]), NAMES),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Both, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


def written(rule: Rule) -> str:
    match rule:
        case Asks(status, name):
            return status + '("' + name.replace("\\", "\\\\").replace('"', '\\"') + '")'
        case Constant(value):
            return str(value).upper()
        case Not(operand):
            return f"NOT ({written(operand)})"
        case Both(kind, operands):
            return "(" + f" {kind} ".join(f"({written(each)})" for each in operands) + ")"


@settings(max_examples=100)
@given(RULES, st.dictionaries(NAMES, st.sampled_from(["ALARM", "OK", "INSUFFICIENT_DATA"]), max_size=3))
def test_L03_what_is_written_is_what_is_read(rule: Rule, states: dict[str, str]) -> None:
    read = parse_rule(written(rule))
    assert read == rule
    assert set(names_in(read)) == set(names_in(rule))
    assert holds(read, states.get) == holds(rule, states.get)
