"""Alarms: what they watch and in which state they are.

An alarm is a resource of kind `alarm`: its spec an `AlarmSpec`, its status the state (`OK`, `ALARM`,
`INSUFFICIENT_DATA`), so whoever must know an alarm's state reads one row. Names keep their case.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from clary.domain.arns import Arn

ALARM_KIND = "alarm"

AlarmStatus = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

ALARM_STATUSES: tuple[AlarmStatus, ...] = ("OK", "ALARM", "INSUFFICIENT_DATA")

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
    ignores_low_samples: bool = False  # a percentile of too few values changes nothing
    rule: str = ""
    actions_enabled: bool = True
    alarm_actions: tuple[str, ...] = ()
    ok_actions: tuple[str, ...] = ()
    insufficient_data_actions: tuple[str, ...] = ()

    @property
    def type(self) -> Literal["MetricAlarm", "CompositeAlarm"]:
        return "CompositeAlarm" if self.rule else "MetricAlarm"

    def actions(self, status: AlarmStatus) -> tuple[str, ...]:
        """What is done in a state; nothing while actions are disabled."""
        if not self.actions_enabled:
            return ()
        by_status = {
            "ALARM": self.alarm_actions,
            "OK": self.ok_actions,
            "INSUFFICIENT_DATA": self.insufficient_data_actions,
        }
        return by_status[status]


@dataclass(frozen=True, slots=True)
class AlarmState:
    """Why an alarm is in its state, and since when. The state itself is the resource's status."""

    reason: str
    reason_data: str  # JSON, or empty
    updated_at: datetime
    transitioned_at: datetime
    configured_at: datetime
    set_at: datetime | None = None  # when SetAlarmState said so, until an evaluation says something


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of an alarm's state; or the state it has, where an action is repeated while it lasts."""

    old: AlarmStatus
    new: AlarmStatus
    reason: str
    reason_data: str
    at: datetime


INITIAL_REASON = "Unchecked: Initial alarm creation"


def alarm_arn(region: str, account: str, name: str) -> str:
    return str(Arn("aws", "cloudwatch", region, account, f"alarm:{name}"))
