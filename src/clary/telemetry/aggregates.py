"""What the metric store gives back: metrics' identities, and everything observed in a period of time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from clary.links.metrics import Dimensions
from clary.telemetry.sketches import Sketch, merge, quantile

Row = tuple[int, float, float, float, float, bytes]  # start, count, sum, minimum, maximum, sketch


@dataclass(frozen=True, slots=True)
class Metric:
    """What identifies a metric: a read with other dimensions than were written finds nothing."""

    account: str
    region: str
    namespace: str
    name: str
    dimensions: Dimensions


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Everything observed in one period."""

    start: int  # seconds since the epoch
    count: float
    sum: float
    minimum: float
    maximum: float
    sketch: Sketch

    @property
    def average(self) -> float:
        return self.sum / self.count

    def percentile(self, percent: float) -> float | None:
        """None where only statistics and not the values themselves were given."""
        value = quantile(self.sketch, percent / 100)
        if value is None or sum(self.sketch.values()) < self.count * 0.999:
            return None
        return min(max(value, self.minimum), self.maximum)


def merge_periods(rows: Iterable[Row], start: int, period: int) -> Iterable[Aggregate]:
    """Adds up neighbouring rows into periods."""
    current: Aggregate | None = None
    for at, count, total, minimum, maximum, packed in rows:
        begin = start + (at - start) // period * period
        added = Aggregate(begin, count, total, minimum, maximum, unpack(packed))
        if current is not None and current.start != begin:
            yield current
            current = None
        current = added if current is None else joined(current, added)
    if current is not None:
        yield current


def joined(a: Aggregate, b: Aggregate) -> Aggregate:
    """Both, as of the period of the first."""
    return Aggregate(
        start=a.start,
        count=a.count + b.count,
        sum=a.sum + b.sum,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
        sketch=merge(a.sketch, b.sketch),
    )


def pack(sketch: Mapping[int, float]) -> bytes:
    """Bucket, count, bucket, count …: small whole numbers take one to three bytes each."""
    flat: list[float] = []
    for key, count in sketch.items():
        flat += (key, int(count) if count == int(count) else count)
    return _ENCODER.encode(flat)


def unpack(packed: bytes) -> Sketch:
    flat = _DECODER.decode(packed)
    return {int(key): count for key, count in zip(flat[::2], flat[1::2], strict=True)}


def merge_packed(a: bytes, b: bytes) -> bytes:
    return pack(merge(unpack(a), unpack(b)))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[float])
