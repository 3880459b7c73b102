"""What gateway and host send control about their metrics: points of five seconds, in numbered batches.

A batch is named by its source (one life of one process) and its number there. A sender repeats batches until they
are acknowledged and the receiver counts each at most once, so a link that breaks loses and doubles nothing. The
batches of a source go out in the order of their numbers; numbers may be missing when a sender gave up on old ones.

A reset begins all metrics anew. Every sender is told its moment, throws away what it saw before, and marks its batches
with the newest moment it knows of: so what was under way meanwhile is known, and counted nowhere.
"""

from dataclasses import dataclass

WINDOW_S = 5
"""Every point covers this long, aligned to multiples of it since the epoch."""

Dimensions = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """What one series saw in one window. `sketch` holds counts by bucket (`telemetry.sketches`).

    The counts in `sketch` add up to `count`, or it is empty where the single values are not known.
    """

    account: str
    region: str
    namespace: str
    name: str
    dimensions: Dimensions
    unit: str
    window_start: int  # seconds since the epoch, a multiple of WINDOW_S
    count: float
    sum: float
    minimum: float
    maximum: float
    sketch: dict[int, float]


@dataclass(frozen=True, slots=True)
class MetricBatch:
    source: str  # for example `gateway-0:4711:88123`: name, pid and start time
    sequence: int  # 1, 2, 3 … within the source
    points: tuple[MetricPoint, ...]
    since_ms: int = 0  # all of it was seen after this moment, in milliseconds since the epoch; 0: not known
