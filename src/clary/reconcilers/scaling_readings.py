"""What scaling policies read of the metrics: counts of requests, and values of whatever they track."""

import math
from datetime import datetime

from clary.domain.alarms import AlarmSpec
from clary.domain.scaling import LOW_PERIODS, Timing, Tracking
from clary.domain.scaling_arithmetic import GRAIN_S, MINUTE_S, Counts
from clary.telemetry.aggregates import Aggregate, Metric, joined
from clary.telemetry.statistics import statistic
from clary.telemetry.store import MetricStore

_FINE = MINUTE_S // GRAIN_S + 2
"""A minute of grains, and the two that are still filling."""

_COMPLETE_AFTER_S = 3.5
_AWS_DELAY_S = 10.0
_EXTRA_PERIODS = 2


class Readings:
    """Reads from one metric store. Times are seconds since the epoch; every method may raise `MetricsUnavailable`."""

    def __init__(self, metrics: MetricStore, timing: Timing) -> None:
        self._metrics = metrics
        self._timing = timing

    def counts(self, account: str, region: str, tracking: Tracking, now: datetime) -> Counts:
        """The requests of a variant whose invocations per instance are tracked, all its instances together.

        They are counted whole, so that neither more nor fewer instances make them look like more or less.
        """
        metric = Metric(account, region, tracking.namespace, "Invocations", tracking.dimensions)
        end = math.floor(now.timestamp() / GRAIN_S) * GRAIN_S + GRAIN_S
        fine = self._read(metric, end, GRAIN_S, _FINE, None)
        minutes = self._read(metric, self._end(now), MINUTE_S, LOW_PERIODS, None)
        return Counts(
            tuple(0.0 if each is None else each.sum for each in fine),
            tuple(None if each is None else each.sum for each in minutes),
        )

    def newest(
        self, account: str, region: str, tracking: Tracking, period_s: int, now: datetime
    ) -> tuple[float, float] | None:
        """The tracked metric's newest value and when its period began; None where there is none of late."""
        metric = Metric(account, region, tracking.namespace, tracking.metric, tracking.dimensions)
        found = self._values(
            metric, tracking.statistic, self._end(now), period_s, 1 + _EXTRA_PERIODS, tracking.unit
        )
        return found[-1] if found else None

    def of_late(
        self, account: str, region: str, tracking: Tracking, now: datetime
    ) -> list[tuple[float, float]]:
        """The tracked metric's values of the last quarter of an hour, a minute each, and when each began."""
        metric = Metric(account, region, tracking.namespace, tracking.metric, tracking.dimensions)
        return self._values(metric, tracking.statistic, self._end(now), MINUTE_S, LOW_PERIODS, tracking.unit)

    def of_alarm(self, account: str, region: str, alarm: AlarmSpec, now: datetime) -> list[float]:
        """The newest values an alarm goes by, as many as it evaluates."""
        if not alarm.metric:
            return []
        metric = Metric(account, region, alarm.namespace, alarm.metric, alarm.dimensions)
        found = self._values(
            metric,
            alarm.statistic,
            self._newest_end(now, alarm.period_s),
            alarm.period_s,
            alarm.evaluation_periods + _EXTRA_PERIODS,
            alarm.unit,
        )
        return [value for value, _ in found][-alarm.evaluation_periods :]

    def _end(self, now: datetime) -> int:
        """Where the newest period ends that every reporter has had time to fill."""
        if self._timing == "aws":
            return math.floor((now.timestamp() - _AWS_DELAY_S) / MINUTE_S) * MINUTE_S
        return math.floor((now.timestamp() - _COMPLETE_AFTER_S) / GRAIN_S) * GRAIN_S

    def _newest_end(self, now: datetime, period_s: int) -> int:
        if self._timing == "aws":
            return self._end(now)
        return math.floor(now.timestamp() / GRAIN_S) * GRAIN_S + GRAIN_S

    def _values(
        self, metric: Metric, name: str, end: int, period_s: int, count: int, unit: str | None
    ) -> list[tuple[float, float]]:
        value_of = statistic(name) or (lambda _: None)
        periods = self._read(metric, end, period_s, count, unit)
        return [
            (value, float(each.start))
            for each in periods
            if each is not None and (value := value_of(each)) is not None
        ]

    def _read(
        self, metric: Metric, end: int, period_s: int, count: int, unit: str | None
    ) -> list[Aggregate | None]:
        """`count` periods that end at `end`, oldest first; those of all units together where none is named."""
        start = end - count * period_s
        by_start: dict[int, Aggregate] = {}
        for aggregates in self._metrics.query(metric, start, end, period_s, unit).values():
            for each in aggregates:
                before = by_start.get(each.start)
                by_start[each.start] = each if before is None else joined(before, each)
        return [by_start.get(start + number * period_s) for number in range(count)]
