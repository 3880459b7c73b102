"""The rules of CloudWatch's alarms: missing data, M of N, windows, and the words of a reason."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.alarm_evaluation import (
    Datapoint,
    Range,
    complete_range,
    crosses,
    decide,
    evaluate,
    look,
    newest_range,
)
from clary.domain.alarms import AlarmSpec, MissingData

NOW = datetime(2026, 11, 21, 9, 0, 2, tzinfo=UTC)
TREATMENTS = get_args(MissingData)
MARKS = {"X": True, "0": False, "-": None}
KEEP = None


def marks(drawn: str) -> list[bool | None]:
    return [MARKS[each] for each in drawn.split()]


@pytest.mark.parametrize(
    ("needed", "drawn", "missing", "ignore", "breaching", "not_breaching"),
    [
        (3, "0 - X - X", "OK", "OK", "OK", "OK"),
        (3, "0 - - - -", "OK", "OK", "OK", "OK"),
        (3, "- - - - -", "INSUFFICIENT_DATA", KEEP, "ALARM", "OK"),
        (3, "0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (3, "- - X - -", "ALARM", KEEP, "ALARM", "OK"),
        # Two of three:
        (2, "0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "0 - X - -", "OK", "OK", "ALARM", "OK"),
        (2, "- - - - 0", "OK", "OK", "ALARM", "OK"),
        (2, "- - - X -", "ALARM", KEEP, "ALARM", "OK"),
        # One value that crosses and is younger than what is needed decides nothing yet.
        (3, "- - - - X", KEEP, KEEP, "ALARM", "OK"),
    ],
)
def test_L03_missing_data_is_treated_as_cloudwatch_does(
    needed: int, drawn: str, missing: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    found = {each: decide(each, 3, needed, marks(drawn)) for each in TREATMENTS}
    assert found == {
        "missing": missing,
        "ignore": ignore,
        "breaching": breaching,
        "notBreaching": not_breaching,
    }


@settings(max_examples=200)
@given(st.data())
def test_L03_whole_data_is_decided_by_the_newest_alone(data: st.DataObject) -> None:
    periods = data.draw(st.integers(1, 6))
    needed = data.draw(st.integers(1, periods))
    seen = data.draw(st.lists(st.booleans(), min_size=periods, max_size=periods + 2))
    expected = "ALARM" if sum(seen[-periods:]) >= needed else "OK"
    assert {decide(each, periods, needed, seen) for each in TREATMENTS} == {expected}


@settings(max_examples=200)
@given(st.data())
def test_L03_one_more_value_that_crosses_never_ends_an_alarm(data: st.DataObject) -> None:
    periods = data.draw(st.integers(1, 5))
    needed = data.draw(st.integers(1, periods))
    treatment: MissingData = data.draw(st.sampled_from(["breaching", "notBreaching"]))
    seen = data.draw(st.lists(st.sampled_from([True, False, None]), min_size=periods, max_size=periods + 2))
    place = data.draw(st.integers(0, len(seen) - 1))
    if decide(treatment, periods, needed, seen) == "ALARM" and seen[place] is not None:
        assert decide(treatment, periods, needed, [*seen[:place], True, *seen[place + 1 :]]) == "ALARM"


@pytest.mark.parametrize(
    ("comparison", "below", "equal", "above"),
    [
        ("GreaterThanOrEqualToThreshold", False, True, True),
        ("GreaterThanThreshold", False, False, True),
        ("LessThanThreshold", True, False, False),
        ("LessThanOrEqualToThreshold", True, True, False),
    ],
)
def test_L03_the_four_comparisons(comparison: Any, below: bool, equal: bool, above: bool) -> None:
    spec = AlarmSpec("a", comparison=comparison, threshold=5.0)
    assert [crosses(spec, value) for value in (4.0, 5.0, 6.0)] == [below, equal, above]


class Load:
    """A steady load of so much a second, reported up to some moment, in windows of five seconds."""

    def __init__(self, per_s: float, until: float) -> None:
        self._per_s = per_s
        self._until = until

    def __call__(self, seen: Range) -> list[Datapoint]:
        points = []
        for start in range(seen.start, seen.end, seen.period):
            covered = min(start + seen.period, self._until) - start
            if covered > 0:
                points.append(Datapoint(start, covered * self._per_s, covered))
        return points


@settings(max_examples=60)
@given(st.floats(0, 120), st.sampled_from([10, 30, 60, 300]), st.integers(1, 3))
def test_L03_a_steady_load_never_looks_like_half_of_it(passed: float, period: int, periods: int) -> None:
    now = NOW + timedelta(seconds=passed)
    load = Load(10.0, until=now.timestamp() - 3.5)  # the last report is still to come
    spec = AlarmSpec(
        "a", statistic="Sum", period_s=period, evaluation_periods=periods, threshold=9.5 * period
    )
    for timing in ("fast", "aws"):
        low = replace(spec, comparison="LessThanThreshold")
        assert look(low, load, now, timing).status == "OK"
        assert look(spec, load, now, timing).status == "ALARM"


def test_L03_a_burst_is_seen_before_its_minute_is_over() -> None:
    spec = AlarmSpec("a", statistic="Sum", period_s=60, threshold=100, comparison="GreaterThanThreshold")
    burst = [Datapoint(int(NOW.timestamp()) // 5 * 5, 500.0, 500.0)]

    def read(seen: Range) -> Sequence[Datapoint]:
        inside = [p for p in burst if seen.start <= p.start < seen.end]
        return [replace(p, start=seen.start + (p.start - seen.start) // 60 * 60) for p in inside]

    assert look(spec, read, NOW, "fast").status == "ALARM"
    assert look(spec, read, NOW, "aws").status == "INSUFFICIENT_DATA"
    assert look(spec, read, NOW + timedelta(seconds=70), "aws").status == "ALARM"


@pytest.mark.parametrize(
    ("statistic", "is_raised"),
    [
        ("Sum", True),
        ("SampleCount", True),
        ("Maximum", True),
        ("Average", False),
        ("Minimum", False),
        ("p90", False),
    ],
)
def test_L03_what_better_values_may_still_lower_raises_nothing_yet(statistic: str, is_raised: bool) -> None:
    """One gateway has reported, a single error; the other one's many good answers are under way."""
    spec = AlarmSpec("a", statistic=statistic, period_s=10, threshold=0.5, comparison="GreaterThanThreshold")
    error = Datapoint(int(NOW.timestamp()) // 5 * 5 - 5, 1.0, 1.0)

    def read(seen: Range) -> list[Datapoint]:
        if not seen.start <= error.start < seen.end:
            return []
        return [replace(error, start=seen.start + (error.start - seen.start) // 10 * 10)]

    assert (look(spec, read, NOW, "fast").status == "ALARM") is is_raised


def test_L03_windows_end_where_all_reporters_had_their_time() -> None:
    spec = AlarmSpec("a", period_s=60, evaluation_periods=1)
    now = NOW.timestamp()
    assert complete_range(spec, now, "fast") == Range(int(now) - 7, 60, 3)
    assert newest_range(spec, now) == Range(int(now) + 3, 60, 3)
    assert complete_range(spec, now, "aws").end == int(now) - 62  # 08:59, as 09:00 is not ten seconds old
    long = AlarmSpec("a", period_s=3600, evaluation_periods=24)
    assert complete_range(long, now, "fast").end % 60 == 0
    assert newest_range(long, now).end % 60 == 0


def points(*values: float, period: int = 60) -> tuple[Range, list[Datapoint]]:
    end = 1_795_251_600  # 2026-11-21 09:00
    seen = Range(end, period, len(values))
    return seen, [Datapoint(seen.start + number * period, value, 3.0) for number, value in enumerate(values)]


def test_L03_reasons_are_in_cloudwatchs_words() -> None:
    spec = AlarmSpec("a", threshold=1.0, comparison="GreaterThanOrEqualToThreshold", statistic="Sum")
    seen, found = points(0.0, 0.0, 5.0)
    verdict = evaluate(spec, seen, found, NOW)
    assert verdict.status == "ALARM"
    assert verdict.reason == (
        "Threshold Crossed: 1 datapoint [5.0 (21/11/26 08:59:00)]"
        " was greater than or equal to the threshold (1.0)."
    )
    data = json.loads(verdict.reason_data)
    assert data["recentDatapoints"] == [5.0]
    assert data["queryDate"] == "2026-11-21T09:00:02.000+0000"
    assert data["evaluatedDatapoints"] == [
        {"timestamp": "2026-11-21T08:59:00.000+0000", "sampleCount": 3.0, "value": 5.0}
    ]
    seen, found = points(5.0, 5.0, 0.0)
    assert evaluate(spec, seen, found, NOW).reason == (
        "Threshold Crossed: 1 datapoint [0.0 (21/11/26 08:59:00)]"
        " was not greater than or equal to the threshold (1.0)."
    )
    two_of_three = replace(spec, evaluation_periods=3, datapoints_to_alarm=2)
    assert evaluate(two_of_three, *points(5.0, 0.0, 6.0), NOW).reason == (
        "Threshold Crossed: 2 out of the last 3 datapoints [6.0 (21/11/26 08:59:00), 5.0 (21/11/26 08:57:00)]"
        " were greater than or equal to the threshold (1.0) (minimum 2 datapoints for OK -> ALARM transition)."
    )
    empty = replace(spec, missing_data="notBreaching")
    assert evaluate(empty, points(0.0, 0.0, 0.0)[0], [], NOW).reason == (
        "Threshold Crossed: no datapoints were received for 1 period"
        " and 1 missing datapoint was treated as [NonBreaching]."
    )
    unknown = evaluate(spec, points(0.0, 0.0, 0.0)[0], [], NOW)
    assert unknown.status == "INSUFFICIENT_DATA"
    assert unknown.reason == "Insufficient Data: 1 datapoint was unknown."


def test_L03_a_percentile_of_too_few_values_changes_nothing_where_that_is_asked() -> None:
    spec = AlarmSpec("a", statistic="p99", threshold=1.0)
    seen, found = points(9.0, 9.0, 9.0)
    assert evaluate(spec, seen, found, NOW).status == "ALARM"
    careful = replace(spec, ignores_low_samples=True)
    assert evaluate(careful, seen, found, NOW).status is None
    assert evaluate(careful, seen, [replace(p, samples=1000.0) for p in found], NOW).status == "ALARM"
