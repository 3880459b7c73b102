"""Alarms: what they watch and in which state they are.

An alarm is a resource of kind `alarm`: its spec an `AlarmSpec`, its status the state (`OK`, `ALARM`,
`INSUFFICIENT_DATA`), so whoever must know an alarm's state reads one row. Names keep their case.
"""

from dataclasses import dataclass
from typing import Literal

ALARM_KIND = "alarm"

AlarmStatus = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

Comparison = Literal[
    "GreaterThanOrEqualToThreshold",
    "GreaterThanThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
]

MissingData = Literal["missing", "notBreaching", "breaching", "ignore"]


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """A metric alarm (`rule` empty) or a composite one (`rule` given, no metric). Periods in seconds."""

    name: str
    description: str = ""
    namespace: str = ""
    metric: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()  # sorted by name
    statistic: str = "Average"  # or `p99`
    unit: str | None = None
    period_s: int = 60
    evaluation_periods: int = 1
    datapoints_to_alarm: int | None = None
    threshold: float = 0.0
    comparison: Comparison = "GreaterThanThreshold"
    missing_data: MissingData = "missing"
    rule: str = ""
    actions_enabled: bool = True
    alarm_actions: tuple[str, ...] = ()
    ok_actions: tuple[str, ...] = ()
    insufficient_data_actions: tuple[str, ...] = ()
