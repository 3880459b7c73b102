"""CloudWatch's statistics, by name, over what the metric store aggregated."""

import re
from collections.abc import Callable

from clary.telemetry.aggregates import Aggregate

Statistic = Callable[[Aggregate], float | None]
"""None where the values for it are not known."""

_PLAIN: dict[str, Statistic] = {
    "SampleCount": lambda seen: seen.count,
    "Sum": lambda seen: seen.sum,
    "Average": lambda seen: seen.average,
    "Minimum": lambda seen: seen.minimum,
    "Maximum": lambda seen: seen.maximum,
}

_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d{1,10})?)", re.ASCII)


def statistic(name: str) -> Statistic | None:
    """The statistic of that name; None where there is none."""
    if name in _PLAIN:
        return _PLAIN[name]
    percent = percentile(name)
    return None if percent is None else lambda seen: seen.percentile(percent)


def percentile(name: str) -> float | None:
    """`p99.9` → 99.9; None for what is no percentile."""
    match = _PERCENTILE.fullmatch(name)
    return float(match[1]) if match is not None and float(match[1]) <= 100 else None
