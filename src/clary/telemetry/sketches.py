"""Mergeable quantile sketches with one per cent of relative error, after DDSketch.

A sketch is a plain dict from bucket to count, so that it merges by addition and travels as it is. Bucket
`OFFSET + i` holds the values in (GAMMA^(i-1), GAMMA^i]; a negative value has the negative of its magnitude's bucket and
bucket 0 holds what is too small to tell from zero. Buckets therefore sort as their values do.
"""

import math
from collections.abc import Mapping

Sketch = dict[int, float]

RELATIVE_ERROR = 0.01
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
PER_LOG = 1 / math.log(GAMMA)
OFFSET = 2000
TINY = GAMMA**-1990  # about 5e-18: below it everything is bucket 0
MOST_BUCKETS = 2048


def bucket(value: float) -> int:
    """The bucket of a finite value."""
    if value > TINY:
        return math.ceil(math.log(value) * PER_LOG) + OFFSET
    if value < -TINY:
        return -math.ceil(math.log(-value) * PER_LOG) - OFFSET
    return 0


def representative(key: int) -> float:
    """The value that is within RELATIVE_ERROR of everything in the bucket."""
    if key == 0:
        return 0.0
    magnitude = 2 * math.exp((abs(key) - OFFSET) / PER_LOG) / (1 + GAMMA)
    return magnitude if key > 0 else -magnitude


def merge(into: Sketch, other: Mapping[int, float]) -> Sketch:
    """Adds `other` to `into`, in place, and returns it."""
    for key, count in other.items():
        into[key] = into.get(key, 0) + count
    return collapse(into) if len(into) > MOST_BUCKETS else into


def collapse(sketch: Sketch) -> Sketch:
    """Joins the lowest buckets until MOST_BUCKETS are left: high percentiles, which people look at, stay exact."""
    keys = sorted(sketch)
    lowest, kept = keys[: len(keys) - MOST_BUCKETS], keys[len(keys) - MOST_BUCKETS]
    for key in lowest:
        sketch[kept] += sketch.pop(key)
    return sketch


def quantile(sketch: Mapping[int, float], fraction: float) -> float | None:
    """The smallest value that `fraction` (0 to 1) of the counted ones do not exceed; None for an empty sketch."""
    total = sum(sketch.values())
    if total <= 0:
        return None
    rank = fraction * total * (1 - 1e-12)  # 0.07 * 100 is a little more than 7
    seen = 0.0
    keys = sorted(sketch)
    for key in keys:
        seen += sketch[key]
        if seen >= rank:
            return representative(key)
    return representative(keys[-1])
