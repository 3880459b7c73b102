"""The writing side of metrics: what the gateway and the host count with.

Light on purpose, because both import it on their hot paths: no database, no AWS. A `Series` is a handle the caller
keeps; observing is plain arithmetic on it and never looks at a clock. Every few seconds the owner calls
`Recorder.drain`, which makes a numbered batch of everything seen since, and sends `pending()` until acknowledged.

One thread at a time: observe and drain on the same thread, or under the same lock.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from math import ceil, log
from typing import Final

from clary.domain.clock import Clock
from clary.links.metrics import WINDOW_S, Dimensions, MetricBatch, MetricPoint
from clary.telemetry.sketches import OFFSET, PER_LOG, TINY, Sketch, bucket


class Series:
    """One metric with its dimensions, ready to observe. Two handles of the same metric add up."""

    __slots__ = ("_active", "_buckets", "_count", "_identity", "_maximum", "_minimum", "_sum")

    def __init__(self, identity: tuple[str, str, str, str, Dimensions, str], active: "list[Series]") -> None:
        self._identity: Final = identity
        self._active: Final = active
        self._count = 0.0
        self._sum = 0.0
        self._minimum = 0.0
        self._maximum = 0.0
        self._buckets: Sketch = {}

    def observe(self, value: float) -> None:
        """Counts one value. Every statement here is paid for on each invocation."""
        if not self._count:
            self._begin(value)
        self._count += 1
        self._sum += value
        if value < self._minimum:
            self._minimum = value
        elif value > self._maximum:
            self._maximum = value
        key = ceil(log(value) * PER_LOG) + OFFSET if value > TINY else bucket(value)
        buckets = self._buckets
        if key in buckets:
            buckets[key] += 1
        else:
            buckets[key] = 1

    def observe_all(self, values: Collection[float]) -> None:
        """Counts each of the values, for a fraction of what as many `observe` cost."""
        if not values:
            return
        least, most = min(values), max(values)
        if least <= TINY:
            for value in values:
                self.observe(value)
            return
        if not self._count:
            self._begin(least)
        self._count += len(values)
        self._sum += sum(values)
        self._minimum = min(self._minimum, least)
        self._maximum = max(self._maximum, most)
        for logarithm, count in Counter(map(ceil, map(PER_LOG.__mul__, map(log, values)))).items():
            key = logarithm + OFFSET
            self._buckets[key] = self._buckets.get(key, 0) + count

    def add(self, value: float, count: float) -> None:
        """Counts the same value `count` times."""
        if count <= 0:
            return
        if not self._count:
            self._begin(value)
        self._count += count
        self._sum += value * count
        self._minimum = min(self._minimum, value)
        self._maximum = max(self._maximum, value)
        key = bucket(value)
        self._buckets[key] = self._buckets.get(key, 0) + count

    def _begin(self, value: float) -> None:
        # The recorder knows only series that saw something since the last drain, so a handle that its owner
        # drops (a deleted endpoint's) leaves nothing behind.
        self._active.append(self)
        self._sum = 0.0
        self._minimum = self._maximum = value

    def _take(self, window_start: int) -> MetricPoint:
        account, region, namespace, name, dimensions, unit = self._identity
        point = MetricPoint(
            account=account,
            region=region,
            namespace=namespace,
            name=name,
            dimensions=dimensions,
            unit=unit,
            window_start=window_start,
            count=self._count,
            sum=self._sum,
            minimum=self._minimum,
            maximum=self._maximum,
            sketch=self._buckets,
        )
        self._drop()
        return point

    def _drop(self) -> None:
        self._count = 0.0
        self._buckets = {}


class Recorder:
    """Hands out series and makes batches of what they saw. `source` names this life of this process."""

    def __init__(self, source: str, clock: Clock, keep_s: float = 900.0) -> None:
        self._source = source
        self._clock = clock
        self._keep_s = keep_s
        self._active: list[Series] = []
        self._pending: deque[tuple[float, MetricBatch]] = deque()
        self._sequence = 0
        self._drained_at = clock.now().timestamp()
        self._since_ms = int(self._drained_at * 1000)

    def series(
        self,
        account: str,
        region: str,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str] | Iterable[tuple[str, str]],
        unit: str = "None",
    ) -> Series:
        """A new handle, to be kept and used for many observations. `unit` is CloudWatch's word."""
        pairs = dimensions.items() if isinstance(dimensions, Mapping) else dimensions
        return Series((account, region, namespace, name, tuple(sorted(pairs)), unit), self._active)

    def drain(self) -> MetricBatch | None:
        """A batch of everything observed since the last drain, now also in `pending`; None when there was nothing.

        Called once a telemetry interval. The points go to the window in which the middle of the drained time lies.
        """
        now = self._clock.now().timestamp()
        middle = (self._drained_at + now) / 2
        self._drained_at = now
        self._forget_old(now)
        if not self._active:
            return None
        window_start = int(middle // WINDOW_S) * WINDOW_S
        self._sequence += 1
        points = tuple(series._take(window_start) for series in self._active)
        self._active.clear()
        batch = MetricBatch(self._source, self._sequence, points, self._since_ms)
        self._pending.append((now, batch))
        return batch

    def begin(self, since_ms: int) -> None:
        """Throws away what was seen before this moment. Once for each: telling it again changes nothing."""
        if since_ms <= self._since_ms:
            return
        self._since_ms = since_ms
        self._drained_at = self._clock.now().timestamp()
        self._pending.clear()
        for series in self._active:
            series._drop()
        self._active.clear()

    def pending(self, after: int = 0) -> list[MetricBatch]:
        """The batches not acknowledged yet and numbered beyond `after`, oldest first."""
        return [batch for _, batch in self._pending if batch.sequence > after]

    def acknowledge(self, sequence: int) -> None:
        """The receiver has every batch up to this number."""
        while self._pending and self._pending[0][1].sequence <= sequence:
            self._pending.popleft()

    def _forget_old(self, now: float) -> None:
        while self._pending and now - self._pending[0][0] > self._keep_s:
            self._pending.popleft()
