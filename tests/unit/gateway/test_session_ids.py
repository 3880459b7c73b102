"""Session ids carry the instance and the end, in SageMaker's own form, and give back the container's id."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.gateway.session_ids import LONGEST, BadSession, is_valid, mark, opened, parse

MARK = mark("i-0123456789abcdef0")
IS_HEADER = re.compile(r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*;\sExpires=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

ids = st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", fullmatch=True).filter(lambda text: len(text) <= 200)


@given(ids, st.datetimes().filter(lambda moment: moment.year >= 1970))
@settings(max_examples=100, deadline=None)
def test_H12_an_id_comes_back_as_the_container_wrote_it(own: str, end: object) -> None:
    expires = f"{end:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0")
    header = opened(f"{own}; Expires={expires}", MARK)
    assert IS_HEADER.match(header)
    assert len(header) <= LONGEST
    text, _, rest = header.partition("; ")
    assert rest == f"Expires={expires}"
    found = parse(text)
    assert is_valid(text)
    assert found is not None
    assert (found.own, found.mark, str(found)) == (own, MARK, text)


def test_H12_the_end_is_in_the_id() -> None:
    text = opened("s; Expires=2026-01-01T00:00:00Z", MARK).partition(";")[0]
    found = parse(text)
    assert found is not None
    assert found.ends_at == 1_767_225_600


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("s", "not of the form"),
        ("s; Expires=tomorrow", "not of the form"),
        ("-s; Expires=2026-01-01T00:00:00Z", "not of the form"),
        ("s; Expires=2026-13-01T00:00:00Z", "is no time"),
        ("s; Expires=1969-01-01T00:00:00Z", "before 1970"),
        ("s" * 210 + "; Expires=2026-01-01T00:00:00Z", "has 210 characters, 6 more than fit"),
        ("s; Expires=2026-01-01T00:00:00Z\n", "not of the form"),
    ],
)
def test_H12_a_header_that_cannot_be_used_says_why(header: str, words: str) -> None:
    with pytest.raises(BadSession, match=words):
        opened(header, MARK)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_H12_any_text_is_an_id_or_none(text: str) -> None:
    found = parse(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", "a b", "a" * 257, "a;b", "a\n"])
def test_H12_what_no_session_id_looks_like(text: str) -> None:
    assert not is_valid(text)


def test_H12_an_instance_has_one_mark_and_others_have_another() -> None:
    assert mark("i-1") == mark("i-1")
    assert mark("i-1") != mark("i-2")
