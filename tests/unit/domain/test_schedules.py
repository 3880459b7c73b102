"""Schedules: what is one, and when each comes round."""

from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain import schedules
from clary.domain.schedules import BadSchedule, last_time, next_time, parse_schedule, parse_zone

_UTC = ZoneInfo("UTC")
_BERLIN = ZoneInfo("Europe/Berlin")
_NEW_YORK = ZoneInfo("America/New_York")
_START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)  # a Saturday


def times(text: str, count: int, after: datetime = _START, zone: ZoneInfo = _UTC) -> list[str]:
    schedule = parse_schedule(text)
    found = []
    due: datetime | None = after
    for _ in range(count):
        assert due is not None
        due = next_time(schedule, due, zone, _START)
        if due is None:
            break
        found.append(due.strftime("%Y-%m-%dT%H:%M"))
    return found


def test_K04_at_is_once() -> None:
    assert times("at(2026-11-21T10:00:30)", 2) == ["2026-11-21T10:00"]
    assert times("at(2026-11-21T09:00:00)", 1) == []
    assert times("at(2026-11-21T12:00:00)", 1, zone=_BERLIN) == ["2026-11-21T11:00"]


def test_K04_a_rate_counts_from_its_anchor() -> None:
    assert times("rate(5 minutes)", 2) == ["2026-11-21T09:05", "2026-11-21T09:10"]
    assert times("rate(1 hour)", 1) == ["2026-11-21T10:00"]
    assert times("rate(2 days)", 1) == ["2026-11-23T09:00"]
    early = _START - timedelta(hours=1)
    assert next_time(parse_schedule("rate(1 day)"), early, _UTC, _START) == _START


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cron(0 10 * * ? *)", ["2026-11-21T10:00", "2026-11-22T10:00"]),
        ("cron(15 12 ? * MON-FRI *)", ["2026-11-23T12:15", "2026-11-24T12:15"]),
        ("cron(0/15 * * * ? *)", ["2026-11-21T09:15", "2026-11-21T09:30"]),
        ("cron(*/30 8-9 * * ? *)", ["2026-11-21T09:30", "2026-11-22T08:00"]),
        ("cron(0 8 1 * ? *)", ["2026-12-01T08:00", "2027-01-01T08:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30T00:00", "2026-12-31T00:00"]),
        ("cron(0 0 LW * ? *)", ["2026-11-30T00:00", "2026-12-31T00:00"]),
        ("cron(0 0 15W * ? *)", ["2026-12-15T00:00", "2027-01-15T00:00"]),
        ("cron(0 0 1W * ? *)", ["2026-12-01T00:00", "2027-01-01T00:00"]),
        ("cron(0 0 ? * 6#3 *)", ["2026-12-18T00:00", "2027-01-15T00:00"]),
        ("cron(0 0 ? * 6L *)", ["2026-11-27T00:00", "2026-12-25T00:00"]),
        ("cron(0 0 ? * L *)", ["2026-11-28T00:00", "2026-12-05T00:00"]),
        ("cron(0 0 ? * 1 *)", ["2026-11-22T00:00", "2026-11-29T00:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("cron(0 0 1 jan ? 2030-2031)", ["2030-01-01T00:00", "2031-01-01T00:00"]),
        ("cron(0 0 1 1,7 ? 2027)", ["2027-01-01T00:00", "2027-07-01T00:00"]),
        ("cron(0 0 31 2 ? *)", []),
        ("cron(0 0 1 1 ? 2020)", []),
    ],
)
def test_K04_cron_fields(text: str, expected: list[str]) -> None:
    assert times(text, 2) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every day",
        "at(tomorrow)",
        "at(2026-13-01T00:00:00)",
        "at(0001-01-01T00:00:00)",
        "rate(0 minutes)",
        "rate(5 seconds)",
        "rate(99999999 days)",
        "cron(0 10 * * *)",
        "cron(0 10 * * * *)",
        "cron(0 10 ? * ? *)",
        "cron(60 10 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 0 * ? *)",
        "cron(0 0 * 13 ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0 0 ? * 6#6 *)",
        "cron(0 0 * * ? 1969)",
        "cron(5-1 0 * * ? *)",
        "cron(0/0 0 * * ? *)",
        "cron(, 0 * * ? *)",
    ],
)
def test_K04_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(BadSchedule):
        parse_schedule(text)


def test_K04_time_zones_are_iana_names() -> None:
    assert parse_zone("Europe/Berlin") == _BERLIN
    for name in ("Mars/Olympus", "../../etc/passwd", "/etc/localtime"):
        with pytest.raises(BadSchedule, match="IANA"):
            parse_zone(name)


def test_K04_local_times_move_with_the_clocks() -> None:
    assert times("cron(0 9 * * ? *)", 2, datetime(2026, 3, 28, tzinfo=UTC), _BERLIN) == [
        "2026-03-28T08:00",
        "2026-03-29T07:00",
    ]


def test_K04_a_skipped_local_time_counts_at_the_change_of_the_clocks() -> None:
    """In New York the clocks go from 02:00 to 03:00 on 8 March 2026, at 07:00 UTC."""
    before = datetime(2026, 3, 8, 6, 0, tzinfo=UTC)
    assert times("cron(30 2 * * ? *)", 2, before, _NEW_YORK) == ["2026-03-08T07:00", "2026-03-09T06:30"]
    assert times("cron(0/30 * * * ? *)", 4, before, _NEW_YORK) == [
        "2026-03-08T06:30",
        "2026-03-08T07:00",
        "2026-03-08T07:30",
        "2026-03-08T08:00",
    ]
    assert times("at(2026-03-08T02:15:00)", 1, before, _NEW_YORK) == ["2026-03-08T07:00"]


def test_K04_a_repeated_local_time_counts_once() -> None:
    """In New York the clocks go from 02:00 back to 01:00 on 1 November 2026, at 06:00 UTC."""
    before = datetime(2026, 11, 1, 5, 0, tzinfo=UTC)
    assert times("cron(30 1 * * ? *)", 2, before, _NEW_YORK) == ["2026-11-01T05:30", "2026-11-02T06:30"]


def test_K04_what_was_missed_counts_once() -> None:
    daily = parse_schedule("cron(0 10 * * ? *)")
    assert last_time(daily, _START, _START + timedelta(days=3), _UTC, _START) == datetime(
        2026, 11, 23, 10, tzinfo=UTC
    )
    assert last_time(daily, _START, _START + timedelta(minutes=5), _UTC, _START) is None
    often = parse_schedule("rate(1 minute)")
    assert last_time(often, _START, _START + timedelta(days=400, seconds=5), _UTC, _START) == (
        _START + timedelta(days=400)
    )
    once = parse_schedule("at(2026-11-21T10:00:00)")
    assert last_time(once, _START, _START + timedelta(days=1), _UTC, _START) == _START + timedelta(hours=1)
    # A month asleep: looked for from the end, not run after from the beginning.
    asleep = _START + timedelta(days=30, seconds=5)
    every_minute = parse_schedule("cron(* * * * ? *)")
    with patch.object(schedules, "_instant", wraps=schedules._instant) as reckoned:
        assert last_time(every_minute, _START, asleep, _UTC, _START) == asleep - timedelta(seconds=5)
    assert reckoned.call_count < 2000


_TEXTS = st.sampled_from(
    [
        "cron(0/20 * * * ? *)",
        "cron(30 1-3 * * ? *)",
        "cron(0 0 ? * 2#1 *)",
        "cron(5 4 L * ? *)",
        "rate(7 minutes)",
        "rate(3 hours)",
    ]
)


@settings(max_examples=100, deadline=None)
@given(
    text=_TEXTS,
    zone=st.sampled_from(
        [_UTC, _BERLIN, _NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")]
    ),
    after=st.integers(0, 6 * 365 * 86_400).map(
        lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
    ),
)
def test_K04_the_next_time_is_later_and_nothing_lies_between(
    text: str, zone: ZoneInfo, after: datetime
) -> None:
    schedule = parse_schedule(text)
    due = next_time(schedule, after, zone, _START)
    assert due is not None and due > after
    assert next_time(schedule, due - timedelta(seconds=1), zone, _START) == due
    between = after + (due - after) / 2
    assert next_time(schedule, between, zone, _START) == due


@settings(max_examples=50, deadline=None)
@given(
    text=_TEXTS,
    zone=st.sampled_from([_UTC, _BERLIN, _NEW_YORK]),
    after=st.integers(0, 366 * 86_400).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    missed_s=st.integers(0, 3 * 86_400),
)
def test_K04_what_was_missed_last_is_the_last_of_all_that_was(
    text: str, zone: ZoneInfo, after: datetime, missed_s: int
) -> None:
    schedule, until = parse_schedule(text), after + timedelta(seconds=missed_s)
    last, due = None, next_time(schedule, after, zone, _START)
    while due is not None and due <= until:
        last, due = due, next_time(schedule, due, zone, _START)
    assert last_time(schedule, after, until, zone, _START) == last
