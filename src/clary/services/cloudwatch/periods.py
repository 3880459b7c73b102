"""Which periods may be asked for, and where the first one begins (CloudWatch's documented rounding)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from clary.domain.faults import Fault

_SHORT = (1, 5, 10, 20, 30)
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) in seconds since the epoch, in periods that begin at `start`."""

    start: int
    end: int
    period: int

    @property
    def most_periods(self) -> int:
        return -(-(self.end - self.start) // self.period)


def check_times(start: datetime, end: datetime, refuse: Callable[[str], Fault]) -> None:
    if start == end:
        raise refuse("The parameter StartTime must not equal parameter EndTime.")
    if start > end:
        raise refuse("The parameter StartTime must be less than the parameter EndTime.")


def span(start: datetime, end: datetime, period: int, now: datetime, refuse: Callable[[str], Fault]) -> Span:
    """The span of a query. `refuse` makes the operation's own fault of a period that is not allowed."""
    if period not in _SHORT and (period < 60 or period % 60):
        raise refuse("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")
    first = int(start.timestamp())
    step = _rounding(period, age_s=now.timestamp() - first)
    return Span(first - first % step, int(-(-end.timestamp() // 1)), period)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _rounding(period: int, age_s: float) -> int:
    if age_s > 63 * _DAY:
        return 3600
    if age_s > 15 * _DAY:
        return 300
    return period if period < 60 else 60
