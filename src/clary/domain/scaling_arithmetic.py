"""How many instances: the arithmetic of target tracking and of step scaling, on plain numbers.

Source: Application Auto Scaling User Guide, "target tracking" and "step scaling policies".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clary.domain.scaling import Adjustment, Step, Stepping

MINUTE_S = 60
GRAIN_S = 5
AGREEING_MINUTES = 3
"""As many whole minutes above the target are believed without doubt: AWS's own rule."""

_DOUBT = 3.0
"""How many standard deviations a short count may lie above its mean by chance."""

_ROUNDING = 1e-9
"""What is left of a whole number by floating point is no further instance."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The requests of a variant, all its instances together.

    `fine`: those of each five seconds, newest last; the last ones may still be filling. `minutes`: those of trailing
    whole minutes, newest last; None where nothing was counted.
    """

    fine: tuple[float, ...] = ()
    minutes: tuple[float | None, ...] = ()


def held_to(capacity: int, least: int, most: int) -> int:
    return max(least, min(most, capacity))


def tracked(capacity: int, value: float, target: float) -> int:
    """How many instances bring a metric that is `value` with `capacity` instances to the target."""
    return _whole(capacity * value / target)


def needed_soon(counts: Counts, target: float, current: int) -> int:
    """How many instances the requests need, as far as the newest of them let nobody doubt it.

    The count of a few seconds swings by chance, by the root of its size: what may be chance is taken off, so that a
    low target does not scale out on noise, while a burst is answered within seconds. A need that has lasted three
    whole minutes is taken at its word.
    """
    needs = [
        _whole(_certain(sum(window)) * MINUTE_S / span_s / target)
        for span_s in (GRAIN_S, 2 * GRAIN_S, MINUTE_S)
        for window in _windows(counts.fine, span_s // GRAIN_S)
    ]
    minutes = counts.minutes[-AGREEING_MINUTES:]
    if len(minutes) == AGREEING_MINUTES and all((each or 0.0) > target * current for each in minutes):
        needs.append(_whole((minutes[-1] or 0.0) / target))
    return max(needs, default=0)


def needed_now(counts: Counts, target: float) -> int:
    """How many instances the newest whole minute needs: AWS's rule."""
    return _whole(((counts.minutes or (None,))[-1] or 0.0) / target)


def needed_at_most(counts: Counts, target: float) -> int:
    """How many instances the busiest of the minutes needed."""
    return _whole(max((each or 0.0 for each in counts.minutes), default=0.0) / target)


def scaled_in(current: int, needed: int) -> int:
    """One move down: never more than half at once, so that a mistake is cheap."""
    return max(needed, current - max(1, current // 2))


def stepped(policy: Stepping, base: int, distance: float) -> int | None:
    """The capacity a step policy asks for at this distance of the metric from the threshold; None for no step."""
    step = step_at(policy.steps, distance)
    return None if step is None else adjusted(base, policy.adjustment, step.amount, policy.least_change)


def step_at(steps: Sequence[Step], distance: float) -> Step | None:
    """Above the threshold an interval holds its lower end, below it its upper one."""
    rules = (_holds_lower, _holds_upper) if distance >= 0 else (_holds_upper, _holds_lower)
    for rule in rules if distance == 0 else rules[:1]:
        for step in steps:
            if rule(step, distance):
                return step
    return None


def adjusted(capacity: int, adjustment: Adjustment, amount: int, least_change: int = 0) -> int:
    match adjustment:
        case "ExactCapacity":
            return amount
        case "ChangeInCapacity":
            return capacity + amount
        case "PercentChangeInCapacity":
            return capacity + _percent(capacity * amount / 100, least_change)


def _percent(change: float, least_change: int) -> int:
    """Rounded towards nothing, but for less than one, which is one."""
    if change == 0:
        return 0
    size = max(math.floor(abs(change) + _ROUNDING), 1, least_change)
    return size if change > 0 else -size


def _holds_lower(step: Step, distance: float) -> bool:
    return (step.lower is None or step.lower <= distance) and (step.upper is None or distance < step.upper)


def _holds_upper(step: Step, distance: float) -> bool:
    return (step.lower is None or step.lower < distance) and (step.upper is None or distance <= step.upper)


def _certain(count: float) -> float:
    return max(0.0, count - _DOUBT * math.sqrt(count))


def _windows(fine: Sequence[float], length: int) -> list[Sequence[float]]:
    """The newest windows of so many grains. The last grains may still be filling: a count can only fall short."""
    ends = range(len(fine), max(length - 1, len(fine) - 3), -1)
    return [fine[end - length : end] for end in ends]


def _whole(capacity: float) -> int:
    return math.ceil(capacity - _ROUNDING)
