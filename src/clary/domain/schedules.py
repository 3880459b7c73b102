"""Schedules as AWS writes them: `at(…)`, `rate(…)` and `cron(…)`, and when they come round next.

A schedule is read in a time zone. What a change of the clocks does to it is settled here: a local time that the
spring change skips counts as the moment of the change, so nothing scheduled is left out; one that the autumn change
repeats counts once, the first time.

    cron(minutes hours day-of-month month day-of-week year)

Days of the week are 1 to 7 from Sunday. One of the two days must be `?`. Beside `*`, lists, ranges and steps, the day
of the month takes `L` (the last), `15W` (the working day nearest to the 15th) and `LW`; the day of the week takes `6L`
(the month's last Friday) and `6#3` (its third).
"""

import calendar
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

FIRST_YEAR, LAST_YEAR = 1970, 2199


class BadSchedule(ValueError):
    """No schedule, or no time zone; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class At:
    """Once, at a local time."""

    moment: datetime  # naive


@dataclass(frozen=True, slots=True)
class Rate:
    """Every so often, counted from an anchor."""

    every: timedelta


@dataclass(frozen=True, slots=True)
class Cron:
    """Whenever the local time fits. `days` tells the days of a month."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Callable[[int, int], Collection[int]]
    months: tuple[int, ...]
    years: tuple[int, ...]


Schedule = At | Rate | Cron


def parse_schedule(text: str) -> Schedule:
    """The schedule that a text says. Raises `BadSchedule`."""
    match = re.fullmatch(r"(at|rate|cron)\((.*)\)", text.strip(), re.DOTALL)
    if match is None:
        raise BadSchedule("it must be at(yyyy-mm-ddThh:mm:ss), rate(value unit) or cron(fields)")
    return _PARSERS[match[1]](match[2].strip())


def parse_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises `BadSchedule`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule(
            f"the time zone {name} is not known: it must be an IANA name such as Europe/Berlin, and the server needs a "
            "time zone database (the system's, or the Python package tzdata)"
        ) from None


def next_time(schedule: Schedule, after: datetime, zone: ZoneInfo, anchor: datetime) -> datetime | None:
    """The first time after `after`, in UTC; None when there is none any more.

    A rate counts from `anchor`, which is itself one of its times. `after` and `anchor` are aware.
    """
    match schedule:
        case At(moment):
            due = _instant(moment, zone)
            return due if due > after else None
        case Rate(every):
            passed = (after - anchor) // every + 1 if after >= anchor else 0
            return (anchor + passed * every).astimezone(UTC)
        case Cron():
            times = (_instant(local, zone) for local in _local_times(schedule, after.astimezone(zone)))
            return next((due for due in times if due > after), None)


def last_time(
    schedule: Schedule, after: datetime, until: datetime, zone: ZoneInfo, anchor: datetime
) -> datetime | None:
    """The newest time after `after` and not later than `until`: what was missed counts once."""
    if isinstance(schedule, Cron):
        return _last_local(schedule, after, until, zone)
    due = next_time(schedule, after, zone, anchor)
    if due is None or due > until:
        return None
    return due + (until - due) // schedule.every * schedule.every if isinstance(schedule, Rate) else due


def _last_local(cron: Cron, after: datetime, until: datetime, zone: ZoneInfo) -> datetime | None:
    """Looked for from the end, further and further back: a minute's schedule may have been missed for months."""
    back = timedelta(hours=1)
    while True:
        start = max(after, until - back)
        newest = None
        for local in _local_times(cron, start.astimezone(zone)):
            due = _instant(local, zone)
            if due > until:
                break
            newest = due if due > start else newest
        if newest is not None or start == after:
            return newest
        back *= 8


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """When a naive local time is, or, where the clocks skip it, when they do."""
    moment = local.replace(tzinfo=zone)
    instant = moment.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local:
        return instant
    before = moment.replace(fold=1).astimezone(UTC)  # read with the offset after the change: lies before it
    old = before.astimezone(zone).utcoffset()
    minutes = range((instant - before) // _MINUTE + 1)
    changed = bisect_left(
        minutes, True, key=lambda n: (before + n * _MINUTE).astimezone(zone).utcoffset() != old
    )
    return (before + changed * _MINUTE).replace(second=0, microsecond=0)


_MINUTE: Final = timedelta(minutes=1)


def _local_times(cron: Cron, after: datetime) -> Iterator[datetime]:
    """The local times that fit, from the day of `after` on, in order."""
    today = after.date()
    for year in cron.years[bisect_left(cron.years, today.year) :]:
        for month in cron.months:
            if (year, month) < (today.year, today.month):
                continue
            for day in sorted(cron.days(year, month)):
                if date(year, month, day) < today:
                    continue
                for hour in cron.hours:
                    for minute in cron.minutes:
                        yield datetime.combine(date(year, month, day), time(hour, minute))


def _parse_at(text: str) -> At:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", text, re.ASCII):
        raise BadSchedule("a time must be written at(yyyy-mm-ddThh:mm:ss)")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadSchedule(f"{text} is no time: {error}") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise BadSchedule(f"the year must lie between {FIRST_YEAR} and {LAST_YEAR}")
    return At(moment)


def _parse_rate(text: str) -> Rate:
    match = re.fullmatch(r"(\d{1,9})\s+(minute|hour|day)s?", text, re.ASCII)
    if match is None or int(match[1]) < 1:
        raise BadSchedule(
            "a rate must be written rate(value unit): a positive number of minutes, hours or days"
        )
    every = timedelta(**{f"{match[2]}s": int(match[1])})
    if every > timedelta(days=366 * 100):
        raise BadSchedule("a rate must not be longer than a hundred years")
    return Rate(every)


def _parse_cron(text: str) -> Cron:
    fields = text.upper().split()
    if len(fields) != 6:
        raise BadSchedule(
            f"cron needs six fields (minutes hours day-of-month month day-of-week year); it has {len(fields)}"
        )
    minutes, hours, month_days, months, week_days, years = fields
    if (month_days == "?") == (week_days == "?"):
        raise BadSchedule("either day-of-month or day-of-week must be ?, and not both")
    return Cron(
        _numbers(minutes, _MINUTES),
        _numbers(hours, _HOURS),
        _days_of_month(month_days) if week_days == "?" else _days_of_week(week_days),
        _numbers(months, _MONTHS),
        _numbers(years, _YEARS),
    )


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()  # for `least`, `least` + 1 …


_MINUTES = _Field("minutes", 0, 59)
_HOURS = _Field("hours", 0, 23)
_DAYS = _Field("day-of-month", 1, 31)
_MONTHS = _Field(
    "month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
_WEEK_DAYS = _Field("day-of-week", 1, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))
_YEARS = _Field("year", FIRST_YEAR, LAST_YEAR)


def _numbers(text: str, field: _Field) -> tuple[int, ...]:
    """What a list of numbers, ranges and steps stands for, sorted."""
    return tuple(sorted({number for part in text.split(",") for number in _part(part, field)}))


def _part(part: str, field: _Field) -> range:
    span, slash, step = part.partition("/")
    low, dash, high = span.partition("-")
    if span == "*":
        first, last = field.least, field.most
    elif dash:
        first, last = _number(low, field), _number(high, field)
    else:
        first = _number(span, field)
        last = field.most if slash else first
    if slash and (not _is_number(step) or int(step) < 1):
        raise BadSchedule(f"{field.name} has a bad step in {part}")
    if last < first:
        raise BadSchedule(f"{field.name} has a range that runs backwards: {part}")
    return range(first, last + 1, int(step) if slash else 1)


def _number(text: str, field: _Field) -> int:
    if text in field.words:
        return field.least + field.words.index(text)
    if not _is_number(text) or not field.least <= int(text) <= field.most:
        raise BadSchedule(f"{field.name} must lie between {field.least} and {field.most}, and it is {text!r}")
    return int(text)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,4}", text, re.ASCII) is not None


def _days_of_month(text: str) -> Callable[[int, int], Collection[int]]:
    if text == "L":
        return lambda year, month: (_length(year, month),)
    if text == "LW":
        return lambda year, month: (_working_day(year, month, _length(year, month)),)
    if text.endswith("W"):
        nearest = _number(text[:-1], _DAYS)
        return lambda year, month: (
            (_working_day(year, month, nearest),) if nearest <= _length(year, month) else ()
        )
    days = _numbers(text, _DAYS)
    return lambda year, month: [day for day in days if day <= _length(year, month)]


def _days_of_week(text: str) -> Callable[[int, int], Collection[int]]:
    if text == "L":
        text = "7"  # the last day of the week
    if "#" in text:
        day, _, which = text.partition("#")
        week_day, number = _number(day, _WEEK_DAYS), _number(which, _Field("the number behind #", 1, 5))
        return lambda year, month: _weekly(year, month, (week_day,))[number - 1 : number]
    if text.endswith("L"):
        week_day = _number(text[:-1], _WEEK_DAYS)
        return lambda year, month: _weekly(year, month, (week_day,))[-1:]
    week_days = _numbers(text, _WEEK_DAYS)
    return lambda year, month: _weekly(year, month, week_days)


def _weekly(year: int, month: int, week_days: Collection[int]) -> list[int]:
    """The days of a month that are one of these days of the week (1 is Sunday)."""
    first = date(year, month, 1).isoweekday() % 7  # 0 is Sunday
    return [day for day in range(1, _length(year, month) + 1) if (first + day - 1) % 7 + 1 in week_days]


def _working_day(year: int, month: int, day: int) -> int:
    """The working day nearest to a day, in the same month."""
    match date(year, month, day).isoweekday():
        case 6:
            return day - 1 if day > 1 else day + 2
        case 7:
            return day + 1 if day < _length(year, month) else day - 2
        case _:
            return day


def _length(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


_PARSERS: Final[dict[str, Callable[[str], Schedule]]] = {
    "at": _parse_at,
    "rate": _parse_rate,
    "cron": _parse_cron,
}
