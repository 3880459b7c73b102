"""Hypothesis strategies that draw requests and answers from botocore's models, and a check of answers.

`input_for` and `output_for` draw members that fit the model; `broken_input_for` draws ones that break one of its
constraints. Text keeps to what its place on the wire can carry, times to the precision they have there.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape
from hypothesis import assume
from hypothesis import strategies as st

from clary.wire.patterns import compiled
from clary.wire.validate import violations

Members = dict[str, Any]

# What botocore itself adds to an answer: S3's Expires as it was sent stands beside the time read from it.
_ADDED = frozenset({"ResponseMetadata", "ExpiresString"})

# Deeper down only what is required is drawn: some shapes hold themselves.
_FULL_DEPTH = 3
_MAX_DEPTH = 12

_LETTERS = st.characters(
    min_codepoint=0x20,
    max_codepoint=0x1F9FF,
    exclude_characters="\x7f",
    exclude_categories=("Cs", "Cc", "Cn"),
)
_TOKEN_LETTERS = string.ascii_letters + string.digits + "-_.~"
_KEY_LETTERS = string.ascii_lowercase + string.digits + "-"

_BITS = {"integer": 32, "long": 64}


def input_for(operation: OperationModel, *, constrained: bool = True) -> st.SearchStrategy[Members]:
    """Members of the input. Not `constrained`, they have the right types and names but any length, range or pattern."""
    return _members(operation.input_shape, constrained)


def output_for(operation: OperationModel, *, constrained: bool = False) -> st.SearchStrategy[Members]:
    """Members of the output, as a handler would return them; streaming ones are bytes, event streams lists."""
    return _members(operation.output_shape, constrained)


@st.composite
def broken_input_for(draw: st.DrawFn, operation: OperationModel) -> Members:
    """Members of the input with one constraint of the model broken; nothing is drawn where there is none to break."""
    params: Members = draw(input_for(operation))
    shape = operation.input_shape
    breaks = list(_breaks(shape, params)) if shape is not None else []
    assume(breaks)
    draw(st.sampled_from(breaks))()
    assume(shape is not None and violations(shape, params))
    return params


def check_output(operation: OperationModel, parsed: Mapping[str, Any]) -> None:
    """Asserts that an answer, as a client's botocore gives it, fits the operation's output shape."""
    members = {name: value for name, value in parsed.items() if name not in _ADDED}
    shape = operation.output_shape
    if shape is None:
        assert not members, f"{operation.name} has no output, but {sorted(members)} came"
        return
    problems = [*_misfits(shape, members, operation.name)]
    assert not problems, "; ".join(problems)
    broken = violations(shape, members)
    assert not broken, "; ".join(broken)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value travels: it decides which text and which times survive."""

    location: str | None
    depth: int
    constrained: bool

    def below(self) -> "_Place":
        return _Place(self.location, self.depth + 1, self.constrained)

    def of(self, member: Shape) -> "_Place":
        location = member.serialization.get("location") or self.location
        return _Place(location, self.depth + 1, self.constrained)


@st.composite
def _members(draw: st.DrawFn, shape: StructureShape | None, constrained: bool) -> Members:
    if shape is None:
        return {}
    drawn: Members = _draw_structure(draw, shape, _Place(None, 0, constrained))
    return drawn


def _draw(draw: st.DrawFn, shape: Shape, place: _Place) -> Any:
    if isinstance(shape, StructureShape):
        return _draw_structure(draw, shape, place)
    if isinstance(shape, ListShape):
        return [_draw(draw, shape.member, place.below()) for _ in range(_draw_size(draw, shape, place))]
    if isinstance(shape, MapShape):
        return _draw_map(draw, shape, place)
    return draw(_scalar(shape, place))


def _draw_structure(draw: st.DrawFn, shape: StructureShape, place: _Place) -> Any:
    if shape.serialization.get("eventstream"):
        return [_draw_event(draw, shape, place)]
    assume(place.depth < _MAX_DEPTH)
    if shape.is_tagged_union:
        chosen = [draw(st.sampled_from(sorted(shape.members)))]
    else:
        chosen = [name for name in shape.members if _is_drawn(draw, shape, name, place)]
    return {name: _draw(draw, shape.members[name], place.of(shape.members[name])) for name in chosen}


def _is_drawn(draw: st.DrawFn, shape: StructureShape, name: str, place: _Place) -> bool:
    if name in shape.required_members:
        return True
    return place.depth < _FULL_DEPTH and draw(st.integers(0, 3)) == 0


def _draw_event(draw: st.DrawFn, shape: StructureShape, place: _Place) -> Members:
    events = [name for name, member in shape.members.items() if not member.metadata.get("exception")]
    name = draw(st.sampled_from(events))
    return {name: _draw(draw, shape.members[name], place.below())}


def _draw_size(draw: st.DrawFn, shape: Shape, place: _Place) -> int:
    least = max(shape.metadata.get("min", 0), 0) if place.constrained else 0
    most = min(shape.metadata.get("max", 3), least + 2) if place.constrained else 2
    return least if place.depth >= _FULL_DEPTH else draw(st.integers(least, max(least, most)))


def _draw_map(draw: st.DrawFn, shape: MapShape, place: _Place) -> Members:
    size = _draw_size(draw, shape, place)
    keys = draw(
        st.lists(_scalar(shape.key, place.below()), min_size=size, max_size=size, unique_by=str.lower)
    )
    return {key: _draw(draw, shape.value, place.below()) for key in keys}


def _scalar(shape: Shape, place: _Place) -> st.SearchStrategy[Any]:
    if isinstance(shape, StringShape):
        return _text(shape, place)
    if shape.type_name in _BITS:
        return st.integers(*_range(shape, place, _BITS[shape.type_name]))
    if shape.type_name in ("float", "double"):
        low, high = (
            (shape.metadata.get("min"), shape.metadata.get("max")) if place.constrained else (None, None)
        )
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if shape.type_name == "boolean":
        return st.booleans()
    if shape.type_name == "timestamp":
        return _times(place)
    least = shape.metadata.get("min", 0) if place.constrained else 0
    return st.binary(min_size=least, max_size=least + 20)


def _range(shape: Shape, place: _Place, bits: int) -> tuple[int, int]:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if not place.constrained:
        return low, high
    return int(shape.metadata.get("min", low)), int(shape.metadata.get("max", high))


def _times(place: _Place) -> st.SearchStrategy[datetime]:
    """Whole seconds in headers and queries, milliseconds elsewhere."""
    steps = st.integers(0, 4_000_000_000) if place.location else st.integers(0, 4_000_000_000_000)
    unit = timedelta(seconds=1) if place.location else timedelta(milliseconds=1)
    return steps.map(lambda count: datetime(1970, 1, 1, tzinfo=UTC) + count * unit)


def _text(shape: StringShape, place: _Place) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    if place.constrained:
        least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
        if "pattern" in shape.metadata and not _is_any_text(shape.metadata["pattern"]):
            pattern = _of_length(shape.metadata["pattern"], least, most)
            matching = st.from_regex(compiled(pattern), fullmatch=True)
            return matching.filter(lambda text: _fits(text, least, most, place))
        longest = least + 20 if most is None else min(most, least + 20)
        return st.text(
            _alphabet(place), min_size=max(least, 1 if place.location else 0), max_size=max(longest, 1)
        )
    return st.text(_alphabet(place), min_size=1 if place.location else 0, max_size=12)


def _of_length(pattern: str, least: int, most: int | None) -> str:
    """The pattern of one repeated set of letters, with the length said in it: hardly any other text would be drawn."""
    repeated = re.fullmatch(r"(\[(?:[^\]\\]|\\.)*\])[*+]", pattern)
    if repeated is None or least == 0:
        return pattern
    longest = least + 20 if most is None else min(most, least + 20)
    return f"{repeated[1]}{{{least},{longest}}}"


def _is_any_text(pattern: str) -> bool:
    """Whether a pattern takes all that XML can carry: Hypothesis would list its million letters at every draw."""
    return pattern.startswith("[\\u0020-\\uD7FF\\uE000-\\uFFFD")


def _fits(text: str, least: int, most: int | None, place: _Place) -> bool:
    in_bounds = least <= len(text) and (most is None or len(text) <= most)
    if place.location:
        return in_bounds and bool(text) and all(letter in _TOKEN_LETTERS for letter in text)
    return in_bounds and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _alphabet(place: _Place) -> str | st.SearchStrategy[str]:
    if place.location == "headers":
        return _KEY_LETTERS
    return _TOKEN_LETTERS if place.location in ("header", "uri") else _LETTERS


def _breaks(shape: Shape, value: Any) -> Iterator[Callable[[], object]]:
    """Ways to break one constraint of `value`'s members in place."""
    if isinstance(shape, StructureShape):
        for name, item in list(value.items()):
            member = shape.members[name]
            if name in shape.required_members and member.serialization.get("location") != "uri":
                yield partial(value.pop, name)
            for bad in _bad_values(member):
                yield partial(value.__setitem__, name, bad)
            yield from _breaks(member, item)
    elif isinstance(shape, ListShape):
        for item in value:
            yield from _breaks(shape.member, item)
    elif isinstance(shape, MapShape):
        for item in value.values():
            yield from _breaks(shape.value, item)


def _bad_values(shape: Shape) -> Iterator[Any]:
    """Values of the right type that break a constraint. None for what has to fit into a path."""
    limits = shape.metadata
    if shape.serialization.get("location") == "uri":
        return
    if isinstance(shape, StringShape):
        if shape.enum:
            yield "no-such-value"
        elif limits.get("max", 1 << 20) < 1 << 16:
            yield "a" * (limits["max"] + 1)
        if limits.get("min", 0) > 1:
            yield "a" * (limits["min"] - 1)
        if "pattern" in limits:
            yield "!?% broken"
    elif shape.type_name in ("integer", "long", "float", "double"):
        if "min" in limits:
            yield limits["min"] - 1
        if "max" in limits and limits["max"] < 1 << 31:
            yield limits["max"] + 1


_TYPES: dict[str, type[Any] | tuple[type[Any], ...]] = {
    "string": str,
    "character": str,
    "integer": int,
    "long": int,
    "float": (float, int),
    "double": (float, int),
    "boolean": bool,
    "timestamp": datetime,
    "structure": Mapping,
    "map": Mapping,
    "list": list,
}


def _misfits(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """What is of the wrong type or unknown; blobs and streams may come as anything that can be read."""
    expected = _TYPES.get(shape.type_name)
    if expected is None or shape.serialization.get("streaming") or shape.serialization.get("eventstream"):
        return
    if not isinstance(value, expected):
        yield f"{path} is {type(value).__name__}, not {shape.type_name}"
    elif isinstance(shape, StructureShape):
        for name, item in value.items():
            if name not in shape.members:
                yield f"{path}.{name} is not in the model"
            elif item is not None:
                yield from _misfits(shape.members[name], item, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        for index, item in enumerate(value):
            yield from _misfits(shape.member, item, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _misfits(shape.value, item, f"{path}.{key}")
