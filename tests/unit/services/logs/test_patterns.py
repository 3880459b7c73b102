"""Filter patterns for plain text."""

import pytest

from clary.domain.faults import Fault
from clary.services.logs.patterns import parse


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        ("", "anything", True),
        ("  ", "anything", True),
        ("ERROR", "[ERROR] failed", True),
        ("ERROR", "error", False),
        ("a b", "b and a", True),
        ("a b", "only a", False),
        ("?WARN ?ERROR", "a WARN", True),
        ("?WARN ?ERROR", "an INFO", False),
        ("ERROR -timeout", "ERROR disk", True),
        ("ERROR -timeout", "ERROR timeout", False),
        ("-x", "none of it", True),
        ('"not found"', "it was not found", True),
        ('"not found"', "found not", False),
        ('-"not found" it', "it was not found", False),
        (r'"say \"hi\""', 'they say "hi"', True),
        ("?ERROR INFO", "INFO", True),
        ("?ERROR INFO", "ERROR", False),
    ],
)
def test_terms(pattern: str, message: str, matches: bool) -> None:
    assert parse(pattern)(message) is matches


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ('{ $.level = "ERROR" }', "JSON"),
        ("[ip, user, code=4*]", "space-delimited"),
        ("%err.*%", "regular expression"),
    ],
)
def test_other_kinds_are_refused_by_name(pattern: str, kind: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(pattern)
    assert caught.value.message == f"The {kind} filter pattern is not supported by this server"


@pytest.mark.parametrize("pattern", ['"open', 'a"b', "?", "- a"])
def test_broken_patterns(pattern: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(pattern)
    assert caught.value.code == "InvalidParameterException"
