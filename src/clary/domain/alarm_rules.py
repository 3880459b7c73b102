"""The rules of composite alarms: `ALARM("a") AND (OK("b") OR NOT INSUFFICIENT_DATA("c"))`, TRUE, FALSE.

Source: CloudWatch API reference, PutCompositeAlarm. An alarm is named by its name or its ARN, quoted or not.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from clary.domain.alarms import AlarmStatus
from clary.domain.arns import parse_arn

LONGEST_RULE = 10_240
MOST_ALARMS = 100
DEEPEST = 100


class BadRule(Exception):
    """The rule cannot be read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Asks:
    """Whether the alarm of this name is in this state."""

    status: AlarmStatus
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    operand: "Rule"


@dataclass(frozen=True, slots=True)
class Both:
    kind: Literal["AND", "OR"]
    operands: tuple["Rule", ...]


Rule = Asks | Constant | Not | Both


def holds(rule: Rule, status_of: Callable[[str], str | None]) -> bool:
    """An alarm that is not there is in no state."""
    match rule:
        case Asks(status, name):
            return status_of(name) == status
        case Constant(value):
            return value
        case Not(operand):
            return not holds(operand, status_of)
        case Both("AND", operands):
            return all(holds(each, status_of) for each in operands)
        case Both(_, operands):
            return any(holds(each, status_of) for each in operands)


def names_in(rule: Rule) -> list[str]:
    """The alarms that the rule asks for, each once, in the rule's order."""
    return list(dict.fromkeys(_names(rule)))


def parse_rule(text: str) -> Rule:
    """Raises `BadRule`."""
    if len(text) > LONGEST_RULE:
        raise BadRule(f"a rule has at most {LONGEST_RULE} characters")
    parser = _Parser(list(_tokens(text)))
    rule = parser.either(0)
    parser.expect_end()
    if len(names_in(rule)) > MOST_ALARMS:
        raise BadRule(f"a rule names at most {MOST_ALARMS} alarms")
    return rule


def _names(rule: Rule) -> Iterator[str]:
    match rule:
        case Asks(_, name):
            yield name
        case Not(operand):
            yield from _names(operand)
        case Both(_, operands):
            for each in operands:
                yield from _names(each)


_TOKEN = re.compile(r'\s*(?:(?P<mark>[()])|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s()"]+))', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Token = tuple[Literal["mark", "quoted", "word"], str, int]


def _tokens(text: str) -> Iterator[Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            raise BadRule(f"the quotation that begins at character {position + 1} does not end")
        start = found.start(found.lastgroup or 0) + 1
        if found["mark"]:
            yield "mark", found["mark"], start
        elif found["word"]:
            yield "word", found["word"], start
        else:
            yield "quoted", _ESCAPED.sub(r"\1", found["quoted"]), start
        position = found.end()


class _Parser:
    """By recursive descent: OR binds weakest, then AND, then NOT."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def either(self, depth: int) -> Rule:
        return self._joined("OR", lambda: self._joined("AND", lambda: self._negated(depth)))

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            _, text, start = self._tokens[self._next]
            raise BadRule(f"{text!r} at character {start} is not expected there")

    def _joined(self, word: Literal["AND", "OR"], operand: Callable[[], Rule]) -> Rule:
        operands = [operand()]
        while self._take("word", word):
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Both(word, tuple(operands))

    def _negated(self, depth: int) -> Rule:
        if depth > DEEPEST:
            raise BadRule(f"it nests more than {DEEPEST} deep")
        if self._take("word", "NOT"):
            return Not(self._negated(depth + 1))
        if self._take("mark", "("):
            rule = self.either(depth + 1)
            self._expect(")")
            return rule
        return self._primary()

    def _primary(self) -> Rule:
        kind, text, start = self._token()
        if kind == "word" and text in ("TRUE", "FALSE"):
            return Constant(text == "TRUE")
        if kind == "word" and text == "AT_LEAST":
            raise BadRule("AT_LEAST is not supported by this server")
        for status in ("ALARM", "OK", "INSUFFICIENT_DATA"):
            if kind == "word" and text == status:
                return self._asks(status)
        raise BadRule(
            f"{text!r} at character {start} is not one of ALARM, OK, INSUFFICIENT_DATA, NOT, TRUE, FALSE or ("
        )

    def _asks(self, status: AlarmStatus) -> Rule:
        self._expect("(")
        kind, text, start = self._token()
        if kind == "mark":
            raise BadRule(f"an alarm's name is expected at character {start}")
        self._expect(")")
        arn = parse_arn(text)
        return Asks(status, arn.resource.removeprefix("alarm:") if arn else text)

    def _token(self) -> Token:
        if self._next >= len(self._tokens):
            raise BadRule("it ends too early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _take(self, kind: str, text: str) -> bool:
        is_next = self._next < len(self._tokens) and self._tokens[self._next][:2] == (kind, text)
        self._next += is_next
        return is_next

    def _expect(self, mark: str) -> None:
        if not self._take("mark", mark):
            at = self._tokens[self._next][2] if self._next < len(self._tokens) else None
            raise BadRule(f"{mark!r} is expected" + (f" at character {at}" if at else " at the end"))
