"""CloudWatch's statistics, by name, over what the metric store aggregated."""

import re
from collections.abc import Callable

from clary.domain.faults import Fault, not_supported
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
_NOT_BUILT = re.compile(r"(?:(?:tm|wm|tc|ts)\d|(?:tm|wm|tc|ts|pr)\(|iqm$)", re.ASCII | re.IGNORECASE)


def find(name: str, refuse: Callable[[str], Fault]) -> Statistic:
    """The statistic of that name, or a fault: `refuse` makes one of the operation's own."""
    if name in _PLAIN:
        return _PLAIN[name]
    match = _PERCENTILE.fullmatch(name)
    if match is not None and float(match[1]) <= 100:
        percent = float(match[1])
        return lambda seen: seen.percentile(percent)
    if _NOT_BUILT.match(name):
        raise not_supported(f"The statistic {name}")
    raise refuse(f"The value {name} is not a valid statistic.")
