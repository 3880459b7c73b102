"""What a metric alarm's state is, from the values it sees: CloudWatch's rules, without a clock and without a store.

Source: CloudWatch User Guide, "Using Amazon CloudWatch alarms" (evaluating an alarm; missing data).

**Values.** An alarm looks at more periods than it needs (`EXTRA_PERIODS` more). Has at least N of them a value, the
newest N decide and nothing is made up for the others. Otherwise `missing_data` says what stands for what is not there.

**Windows.** In AWS's timing a period of a minute or more ends on a whole minute, and is looked at some seconds
later. The fast timing looks at trailing periods, which end at any multiple of five seconds: the grain in which
metrics are kept. Reporters send every five seconds, so the newest windows are still filling when they are looked at.
A window counts as complete when every reporter had its time. Only greater-than alarms of sums, counts and maxima are
also shown the newest windows: what is still to come can only raise those, while half a minute's sum would fall below a
threshold by itself, and an average may be one reporter's single bad answer whose many good ones are yet to be
reported. A value that no longer crosses because half of it is not there yet is not taken for an answer.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from clary.domain.alarms import AlarmSpec, AlarmStatus, MissingData

Timing = Literal["fast", "aws"]

EXTRA_PERIODS = 2
FINE_RANGE_S = 10_000
"""A longer look back goes by whole minutes: five-second values are kept three hours."""

_GRAIN_S = 5
_COMPLETE_AFTER_S = 3.5
"""A report of five seconds counts for the window of its middle; and a second for its way."""
_AWS_DELAY_S = 10.0
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Range:
    """`count` periods that end at `end`, in seconds since the epoch."""

    end: int
    period: int
    count: int

    @property
    def start(self) -> int:
        return self.end - self.period * self.count


@dataclass(frozen=True, slots=True)
class Datapoint:
    """A period's value, and how many single ones it was made of."""

    start: int  # seconds since the epoch
    value: float
    samples: float


class Verdict(NamedTuple):
    """`status` None: the alarm stays as it is."""

    status: AlarmStatus | None
    reason: str = ""
    reason_data: str = ""


def alarm_timing(name: str) -> Timing:
    """The setting's word as what it means."""
    return "aws" if name == "aws" else "fast"


def complete_range(spec: AlarmSpec, now: float, timing: Timing) -> Range:
    """The newest periods that every reporter has had time to fill."""
    if timing == "aws":
        step, delay = (60, _AWS_DELAY_S) if spec.period_s >= 60 else (10, _COMPLETE_AFTER_S)
    else:
        step, delay = _step(spec), _COMPLETE_AFTER_S
    return _range(spec, math.floor((now - delay) / step) * step)


def newest_range(spec: AlarmSpec, now: float) -> Range:
    """The periods up to now, the last of which is still filling."""
    step = _step(spec)
    return _range(spec, math.floor(now / step) * step + step)


def shows_newest(spec: AlarmSpec, timing: Timing) -> bool:
    """Whether the alarm may also go by what is still filling: where more data can only bring it nearer."""
    grows = spec.statistic in ("Sum", "SampleCount", "Maximum")
    return timing == "fast" and grows and spec.comparison.startswith("Greater")


def look(
    spec: AlarmSpec, read: Callable[[Range], Sequence[Datapoint]], now: datetime, timing: Timing
) -> Verdict:
    """What the alarm's state is now. `read` gives the values of a range, oldest first, absent ones left out."""
    seen = complete_range(spec, now.timestamp(), timing)
    verdict = evaluate(spec, seen, read(seen), now)
    if verdict.status == "ALARM" or not shows_newest(spec, timing):
        return verdict
    newest = newest_range(spec, now.timestamp())
    early = evaluate(spec, newest, read(newest), now)
    return early if early.status == "ALARM" else verdict


def evaluate(spec: AlarmSpec, seen: Range, points: Sequence[Datapoint], now: datetime) -> Verdict:
    """What the points in a range, oldest first, say."""
    by_start = {point.start: point for point in points}
    periods = [by_start.get(seen.start + number * seen.period) for number in range(seen.count)]
    marks = [None if point is None else crosses(spec, point.value) for point in periods]
    real = [point for point in periods if point is not None]
    used = real[-spec.evaluation_periods :]
    if spec.ignores_low_samples and any(_has_few_samples(spec.statistic, point) for point in used):
        return Verdict(None)
    needed = spec.datapoints_to_alarm or spec.evaluation_periods
    status = decide(spec.missing_data, spec.evaluation_periods, needed, marks)
    if status is None:
        return Verdict(None)
    filled = max(0, spec.evaluation_periods - len(real))
    return Verdict(status, _reason(spec, status, used, filled), _reason_data(spec, seen, used, now))


def crosses(spec: AlarmSpec, value: float) -> bool:
    match spec.comparison:
        case "GreaterThanOrEqualToThreshold":
            return value >= spec.threshold
        case "GreaterThanThreshold":
            return value > spec.threshold
        case "LessThanThreshold":
            return value < spec.threshold
        case "LessThanOrEqualToThreshold":
            return value <= spec.threshold


def decide(
    missing_data: MissingData, periods: int, needed: int, marks: Sequence[bool | None]
) -> AlarmStatus | None:
    """`needed` of `periods` values must cross. `marks`: which did, oldest first; None where there is no value."""
    real = [mark for mark in marks if mark is not None]
    if len(real) >= periods:
        return "ALARM" if sum(real[-periods:]) >= needed else "OK"
    crossing = sum(real)
    if missing_data == "breaching":
        crossing += periods - len(real)
    if crossing >= needed:
        return "ALARM"
    if missing_data in ("breaching", "notBreaching"):
        return "OK"
    if not real:
        return "INSUFFICIENT_DATA" if missing_data == "missing" else None
    if crossing < len(real):
        return "OK"
    # Every value there is crosses, and they are too few. CloudWatch does not wait for more once the oldest is old.
    age = len(marks) - marks.index(True)
    return "ALARM" if missing_data == "missing" and age >= needed else None


def _step(spec: AlarmSpec) -> int:
    is_fine = spec.period_s * (spec.evaluation_periods + EXTRA_PERIODS) <= FINE_RANGE_S
    return _GRAIN_S if is_fine else 60


def _range(spec: AlarmSpec, end: int) -> Range:
    return Range(end, spec.period_s, spec.evaluation_periods + EXTRA_PERIODS)


def _has_few_samples(statistic: str, point: Datapoint) -> bool:
    """CloudWatch: significant are 10 / (1 - p) values above the median and 10 / p below."""
    fraction = float(statistic[1:]) / 100
    rarer = min(fraction, 1 - fraction)
    return rarer <= 0 or point.samples < 10 / rarer


_WORDS = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to the threshold",
    "GreaterThanThreshold": "greater than the threshold",
    "LessThanThreshold": "less than the threshold",
    "LessThanOrEqualToThreshold": "less than or equal to the threshold",
}


def _reason(spec: AlarmSpec, status: AlarmStatus, used: Sequence[Datapoint], filled: int) -> str:
    """In CloudWatch's words."""
    if status == "INSUFFICIENT_DATA":
        return f"Insufficient Data: {_count(filled, 'datapoint')} {_were(filled)} unknown."
    treated = {"breaching": "Breaching", "notBreaching": "NonBreaching"}.get(spec.missing_data)
    made_up = f"{_count(filled, 'missing datapoint')} {_were(filled)} treated as [{treated}]"
    if not used:
        return (
            f"Threshold Crossed: no datapoints were received for {_count(spec.evaluation_periods, 'period')}"
            f" and {made_up}."
        )
    told = [point for point in used if crosses(spec, point.value) == (status == "ALARM")] or list(used)
    was = _were(len(told)) + (" not" if status == "OK" else "")
    said = f"{was} {_WORDS[spec.comparison]} ({spec.threshold!r})"
    number = _count(len(told), "datapoint")
    needed = spec.datapoints_to_alarm
    if needed is not None:
        number = f"{len(told)} out of the last {_count(spec.evaluation_periods, 'datapoint')}"
    newest_first = ", ".join(
        f"{p.value!r} ({at(p.start):%d/%m/%y %H:%M:%S})" for p in told[::-1][:_MOST_TOLD]
    )
    if len(told) > _MOST_TOLD:
        text = f"{number} {said}. The most recent datapoints which crossed the threshold: [{newest_first}]"
    else:
        text = f"{number} [{newest_first}] {said}"
    if filled and treated:
        text += f" and {made_up}"
    if needed is not None:
        way = "OK -> ALARM" if status == "ALARM" else "ALARM -> OK"
        least = needed if status == "ALARM" else spec.evaluation_periods - needed + 1
        text += f" (minimum {_count(least, 'datapoint')} for {way} transition)"
    return f"Threshold Crossed: {text}."


def _reason_data(spec: AlarmSpec, seen: Range, used: Sequence[Datapoint], now: datetime) -> str:
    data: dict[str, Any] = {"version": "1.0", "queryDate": stamp(now)}
    if used:
        data["startDate"] = stamp(at(used[0].start))
    if spec.unit:
        data["unit"] = spec.unit
    data |= {
        "statistic": spec.statistic,
        "period": seen.period,
        "recentDatapoints": [point.value for point in used],
        "threshold": spec.threshold,
        "evaluatedDatapoints": [
            {"timestamp": stamp(at(p.start)), "sampleCount": p.samples, "value": p.value} for p in used[::-1]
        ],
    }
    return json.dumps(data, separators=(",", ":"))


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def stamp(moment: datetime) -> str:
    """A time as alarms' JSON has it: `2026-11-21T09:00:00.000+0000`."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
