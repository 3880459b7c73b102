"""Events are cut alike from wherever one starts to read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.telemetry.lines import LONGEST_EVENT, MARGIN, cut, decode, first_boundary

texts = st.lists(
    st.sampled_from([0, 1, 5, LONGEST_EVENT // 2, LONGEST_EVENT, LONGEST_EVENT + 1, 3 * LONGEST_EVENT]),
    min_size=1,
    max_size=8,
).map(lambda lengths: b"\n".join(b"x" * length for length in lengths) + b"\n")


@settings(max_examples=40, deadline=None)
@given(texts, st.floats(0, 1))
def test_reading_from_any_place_meets_the_same_boundaries(text: bytes, where: float) -> None:
    boundaries = {0} | {end for _, end in cut(text, 0)}
    base = int(where * (len(text) - 1))
    start = first_boundary(text[base : base + MARGIN], base)
    assert start in boundaries
    assert start - base <= MARGIN
    assert {end for _, end in cut(text[start:], start)} == {each for each in boundaries if each > start}


@settings(max_examples=40, deadline=None)
@given(texts)
def test_events_are_the_text_and_none_is_too_long(text: bytes) -> None:
    events = list(cut(text, 0))
    assert b"".join(text[start:end] for start, end in events) == text
    assert all(end - start <= MARGIN for start, end in events)


def test_a_begun_line_is_no_event() -> None:
    assert list(cut(b"one\ntwo", 10)) == [(10, 14)]


@given(st.binary(max_size=200))
def test_any_bytes_become_printable_text(line: bytes) -> None:
    text = decode(line)
    assert all(char in "\t\r\x1b" or (ord(char) >= 32 and ord(char) != 127) for char in text)
    text.encode()


def test_line_ends_and_colours() -> None:
    assert decode(b"\x1b[31mred\x1b[0m\r\n") == "\x1b[31mred\x1b[0m"
    assert decode(b"a\x00b\xff\n") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
