"""Ranges and conditions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.blobs.base import ObjectInfo
from clary.domain.faults import Fault
from clary.services.s3.conditions import check_read, copy_range, select, write_condition

MODIFIED = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def info(size: int = 100, parts: tuple[int, ...] = ()) -> ObjectInfo:
    return ObjectInfo(bucket="b", key="k", size=size, etag="abc", modified_at=MODIFIED, parts=parts)


@given(st.binary(max_size=30), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 40)))
@settings(max_examples=200, deadline=None)
def test_a_range_is_the_slice_it_names_or_not_satisfiable(body: bytes, first: int, last: int | None) -> None:
    text = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert select(info(len(body)), {"Range": text}) == (0, len(body), False)
        return
    if first >= len(body):
        with pytest.raises(Fault) as caught:
            select(info(len(body)), {"Range": text})
        assert (caught.value.code, caught.value.headers["Content-Range"]) == (
            "InvalidRange",
            f"bytes */{len(body)}",
        )
        return
    span = select(info(len(body)), {"Range": text})
    assert body[span.offset : span.offset + span.length] == body[first : None if last is None else last + 1]


@given(st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_a_suffix_is_the_end(size: int, suffix: int) -> None:
    span = select(info(size), {"Range": f"bytes=-{suffix}"})
    assert (span.offset + span.length, span.length) == (size, min(size, suffix))


def test_parts_are_ranges() -> None:
    whole = info(60, parts=(10, 20, 30))
    assert [select(whole, {"PartNumber": number})[:2] for number in (1, 2, 3)] == [
        (0, 10),
        (10, 20),
        (30, 30),
    ]
    with pytest.raises(Fault, match="Cannot specify both"):
        select(whole, {"PartNumber": 1, "Range": "bytes=0-1"})


def test_an_absurd_range_is_none() -> None:
    assert select(info(), {"Range": "bytes=" + "9" * 50_000 + "-"}) == (0, 100, False)


def test_a_copied_range_must_name_both_ends_inside() -> None:
    assert copy_range("bytes=5-9", 10)[:2] == (5, 5)
    for text in ("bytes=5-", "bytes=-5", "5-9", "bytes=9-5", "bytes=0-10"):
        with pytest.raises(Fault) as caught:
            copy_range(text, 10)
        assert caught.value.code == "InvalidArgument"


def test_dates_are_compared_by_whole_seconds() -> None:
    second = MODIFIED.replace(microsecond=0)
    check_read(info(), {"IfUnmodifiedSince": second})
    check_read(info(), {"IfModifiedSince": second - timedelta(seconds=1)})
    with pytest.raises(Fault) as caught:
        check_read(info(), {"IfModifiedSince": second})
    assert (caught.value.status, caught.value.headers["ETag"]) == (304, '"abc"')


@pytest.mark.parametrize("etag", ['"abc"', "abc", 'W/"abc"', "*", '"x", "abc"'])
def test_etags_match_in_every_spelling(etag: str) -> None:
    check_read(info(), {"IfMatch": etag})
    with pytest.raises(Fault):
        check_read(info(), {"IfNoneMatch": etag})


def test_conditions_on_writes() -> None:
    assert write_condition({}) == (False, None)
    assert write_condition({"IfNoneMatch": "*"}) == (True, None)
    assert write_condition({"IfMatch": '"abc"'}) == (False, "abc")
    for params in ({"IfNoneMatch": '"abc"'}, {"IfNoneMatch": "*", "IfMatch": "abc"}):
        with pytest.raises(Fault):
            write_condition(params)
