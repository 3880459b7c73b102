"""CloudWatch's statistics, by name, and its refusals of what is none."""

import re
from collections.abc import Callable

from clary.domain.faults import Fault, not_supported
from clary.telemetry.statistics import Statistic, statistic

_NOT_BUILT = re.compile(r"(?:(?:tm|wm|tc|ts)\d|(?:tm|wm|tc|ts|pr)\(|iqm$)", re.ASCII | re.IGNORECASE)


def find(name: str, refuse: Callable[[str], Fault]) -> Statistic:
    """The statistic of that name, or a fault: `refuse` makes one of the operation's own."""
    found = statistic(name)
    if found is not None:
        return found
    if _NOT_BUILT.match(name):
        raise not_supported(f"The statistic {name}")
    raise refuse(f"The value {name} is not a valid statistic.")
