"""When a scheduled action is due: its schedule, within its start and its end."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from clary.domain.scaling import ScheduledAction
from clary.domain.schedules import last_time, next_time, parse_schedule, parse_zone

_INSTANT = timedelta(microseconds=1)


def next_run(action: ScheduledAction, after: datetime) -> datetime | None:
    """The first time after `after`. Raises `BadSchedule`."""
    due = next_time(parse_schedule(action.schedule), _from(action, after), _zone(action), action.anchor)
    return None if due is None or (action.end is not None and due > action.end) else due


def last_run(action: ScheduledAction, after: datetime, until: datetime) -> datetime | None:
    """The newest time after `after` and not later than `until`. Raises `BadSchedule`."""
    if action.end is not None:
        until = min(until, action.end)
    schedule = parse_schedule(action.schedule)
    return last_time(schedule, _from(action, after), until, _zone(action), action.anchor)


def _from(action: ScheduledAction, after: datetime) -> datetime:
    return after if action.start is None else max(after, action.start - _INSTANT)


def _zone(action: ScheduledAction) -> ZoneInfo:
    return parse_zone(action.time_zone or "UTC")
