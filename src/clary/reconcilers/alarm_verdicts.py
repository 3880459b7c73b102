"""One alarm, looked at: whether it is time to, and which change of its state follows from what there is to see."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from clary.domain.alarm_evaluation import Datapoint, Range, Timing, complete_range, look, stamp
from clary.domain.alarm_rules import BadRule, Constant, Rule, holds, names_in, parse_rule
from clary.domain.alarms import AlarmSpec, AlarmState, AlarmStatus, alarm_arn
from clary.links.metrics import WINDOW_S
from clary.store import Resource
from clary.telemetry.aggregates import Aggregate, Metric, joined
from clary.telemetry.statistics import Statistic, percentile, statistic
from clary.telemetry.store import MetricStore

EVALUATED_EVERY_S = 5.0
"""Without new data: values leave the windows, too."""
EVALUATED_AFTER_S = 2.0
"""With new data, which comes from several reporters at several times."""
HELD_S = 10.0
"""So long at least a state lasts that somebody set: whoever acts on it has seen it by then."""


class Change(NamedTuple):
    """The state that an alarm, as it was read, should be in."""

    alarm: Resource
    status: AlarmStatus
    reason: str
    reason_data: str


@dataclass(slots=True)
class Watched:
    """An alarm as it was read, and what the last evaluation found: enough to know when another may differ."""

    alarm: Resource
    spec: AlarmSpec
    state: AlarmState
    metric: Metric
    statistic: Statistic
    rule: Rule | None  # of a composite alarm
    is_repeating: bool  # it has actions that are fired while its state lasts
    evaluated_at: float = float("-inf")
    repeated_at: float = float("-inf")
    stamp: int = -1
    end: int = -1
    news_at: float = float("-inf")  # when its metric was last seen to have got data
    is_empty: bool = False

    def is_held(self, now: datetime) -> bool:
        return self.state.set_at is not None and (now - self.state.set_at).total_seconds() < HELD_S


def watched(alarm: Resource, is_repeating: bool) -> Watched:
    spec = alarm.spec_as(AlarmSpec)
    metric = Metric(alarm.account, alarm.region, spec.namespace, spec.metric, spec.dimensions)
    return Watched(
        alarm=alarm,
        spec=spec,
        state=alarm.state_as(AlarmState),
        metric=metric,
        statistic=statistic(spec.statistic) or (lambda _: None),
        rule=_rule(spec.rule) if spec.rule else None,
        is_repeating=is_repeating,
    )


def metric_change(watched: Watched, metrics: MetricStore, now: datetime, timing: Timing) -> Change | None:
    """Nothing where it is not time to look. Raises `MetricsUnavailable`."""
    newest = metrics.stamp(watched.metric)
    if watched.is_held(now) or not _is_due(watched, newest, now, timing):
        return None
    if newest not in (0, watched.stamp):
        watched.news_at = now.timestamp()
    watched.stamp = newest  # taken before the data are read: what comes meanwhile is seen next time
    watched.evaluated_at = now.timestamp()
    watched.end = complete_range(watched.spec, now.timestamp(), timing).end
    watched.is_empty = True

    def read(seen: Range) -> list[Datapoint]:
        points = _points(watched, metrics, seen)
        watched.is_empty = watched.is_empty and not points
        return points

    verdict = look(watched.spec, read, now, timing)
    if verdict.status is None or verdict.status == watched.alarm.status:
        return None
    return Change(watched.alarm, verdict.status, verdict.reason, verdict.reason_data)


def composite_change(watched: Watched, by_arn: Mapping[str, Watched], now: datetime) -> Change | None:
    alarm = watched.alarm
    if watched.rule is None or watched.is_held(now):
        return None
    asked = {
        name: found
        for name in names_in(watched.rule)
        if (found := by_arn.get(alarm_arn(alarm.region, alarm.account, name))) is not None
    }
    does_hold = holds(watched.rule, lambda name: asked[name].alarm.status if name in asked else None)
    status: AlarmStatus = "ALARM" if does_hold else "OK"
    if status == alarm.status:
        return None
    if not asked:
        return Change(alarm, status, "The alarm's rule was evaluated; it names no alarm that is there.", "")
    latest = max(asked.values(), key=lambda found: found.state.transitioned_at)
    at = latest.state.transitioned_at
    reason = f"{latest.alarm.arn} transitioned to {latest.alarm.status} at {at:%A %d %B, %Y %H:%M:%S} UTC"
    return Change(alarm, status, reason, _triggering(latest))


def _is_due(watched: Watched, newest: int, now: datetime, timing: Timing) -> bool:
    if timing == "aws":
        return complete_range(watched.spec, now.timestamp(), "aws").end != watched.end
    passed_s = now.timestamp() - watched.evaluated_at
    if newest != watched.stamp:
        return passed_s >= EVALUATED_AFTER_S
    # What came may lie in a window that is still filling: it is seen when that is complete.
    is_quiet = watched.is_empty and now.timestamp() - watched.news_at > watched.spec.period_s + WINDOW_S
    return not is_quiet and passed_s >= EVALUATED_EVERY_S


def _points(watched: Watched, metrics: MetricStore, seen: Range) -> list[Datapoint]:
    """The values of a range; without a unit in the alarm, those of every unit together."""
    found = metrics.query(
        watched.metric,
        seen.start,
        seen.end,
        seen.period,
        watched.spec.unit,
        has_sketches=percentile(watched.spec.statistic) is not None,
    )
    merged: dict[int, Aggregate] = {}
    for aggregates in found.values():
        for each in aggregates:
            before = merged.get(each.start)
            merged[each.start] = each if before is None else joined(before, each)
    values = ((merged[start], watched.statistic(merged[start])) for start in sorted(merged))
    return [Datapoint(each.start, value, each.count) for each, value in values if value is not None]


def _rule(text: str) -> Rule:
    try:
        return parse_rule(text)
    except BadRule:  # written by another version of this server
        return Constant(False)


def _triggering(latest: Watched) -> str:
    state = {"value": latest.alarm.status, "timestamp": stamp(latest.state.transitioned_at)}
    return json.dumps(
        {"triggeringAlarms": [{"arn": latest.alarm.arn, "state": state}]}, separators=(",", ":")
    )
