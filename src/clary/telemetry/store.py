"""The reading side of metrics: every point, in one SQLite file of its own, at four resolutions.

A point is added to its window at each resolution when it comes in, however late that is, so there is no roll-up to
wait for or to lose; a resolution is kept as long as CloudWatch keeps it. All access is by primary key ranges:
neither writing nor reading slows with age.

Metrics may lose the last moments in a power cut (synchronous=NORMAL); they are never counted twice.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from clary.domain.clock import Clock
from clary.links.decoding import decode_json
from clary.links.metrics import WINDOW_S, Dimensions, MetricBatch, MetricPoint
from clary.telemetry.aggregates import Aggregate, Metric, merge_packed, merge_periods, pack

RETENTION_S: Mapping[int, int] = {
    WINDOW_S: 3 * 3600,
    60: 15 * 86_400,
    300: 63 * 86_400,
    3600: 455 * 86_400,
}
"""Resolution → how long it is kept."""

LISTED_S = 14 * 86_400
SWEEP_EVERY_S = 600


class MetricsUnavailable(Exception):
    """The file cannot be written or read now (a full disk, say); nothing of the call was kept."""


class MetricStore:
    """The file at `path`. Thread-safe: one connection writes, one reads."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _connect(path)
        self._writer.executescript(_TABLES)
        self._reader = _connect(path)
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._series: dict[tuple[Metric, str], tuple[int, int]] = {}  # → (id, last seen)
        self._stamps: dict[Metric, int] = {}
        self._stamp = 0
        self._stamp_lock = threading.Lock()
        self._swept_at = 0.0
        self._since_ms = 0
        # That a sender knows. One that started before the clock was set back is ahead of it.
        self._newest_since_ms = 0

    @property
    def since_ms(self) -> int:
        """When metrics began anew; what was seen before counts no more. 0: nobody has cleared them."""
        return self._since_ms

    @property
    def newest_stamp(self) -> int:
        """Grows with whatever comes in."""
        return self._stamp

    def stamp(self, metric: Metric) -> int:
        """Changes when something of this metric came in (and now and then without): for looking only where to."""
        return self._stamps.get(metric, 0)

    def ingest(self, batch: MetricBatch) -> bool:
        """Adds the batch's points.

        False when this batch, or a later one of its source, is already in, or when it may be of before `clear`.
        """
        with self._writing() as transaction:
            if not self._is_new(transaction, batch):
                return False
            self._add(transaction, batch.points)
        self._note(batch.points)
        self._sweep_when_due()
        return True

    def put(self, added: Iterable[MetricPoint]) -> None:
        """Adds points that come from no recorder: a user's own metrics."""
        points = list(added)
        with self._writing() as transaction:
            self._add(transaction, points)
        self._note(points)

    def query(
        self,
        metric: Metric,
        start: int,
        end: int,
        period: int,
        unit: str | None = None,
        *,
        has_sketches: bool = True,
    ) -> dict[str, list[Aggregate]]:
        """Unit → what was observed in each period of [start, end), by time; periods without anything are absent.

        Periods begin at `start`. Without `unit`, every unit there is. Without sketches, which percentiles alone
        need, it costs a fraction.
        """
        resolution = max(
            each for each in RETENTION_S if each == WINDOW_S or not (period % each or start % each)
        )
        found: dict[str, list[Aggregate]] = {}
        with self._reading() as reader:
            for each, series in _series_of(reader, metric):
                if unit not in (None, each):
                    continue
                if has_sketches:
                    rows = reader.execute(_SELECT_POINTS, (series, resolution, start, end))
                else:
                    rows = reader.execute(_SELECT_SUMS, (start, period, series, resolution, start, end))
                if periods := list(merge_periods(rows, start, period)):
                    found[each] = periods
        return found

    def metrics(
        self,
        account: str,
        region: str,
        namespace: str | None = None,
        name: str | None = None,
        since_s: int = LISTED_S,
    ) -> list[Metric]:
        """The metrics that got a point within the last `since_s` seconds."""
        oldest = self._clock.now().timestamp() - since_s
        with self._reading() as reader:
            rows = reader.execute(
                _SELECT_METRICS, (account, region, namespace, namespace, name, name, oldest)
            )
            return [Metric(account, region, row[0], row[1], _load_dimensions(row[2])) for row in rows]

    def sweep(self) -> None:
        """Removes what is older than its resolution is kept."""
        now = int(self._clock.now().timestamp())
        with self._writing() as transaction:
            ids = [row[0] for row in transaction.execute("SELECT id FROM series")]
            for resolution, kept_s in RETENTION_S.items():
                limits = [(series, resolution, now - kept_s) for series in ids]
                transaction.executemany(_DELETE_OLD, limits)
            longest = max(RETENTION_S.values())
            transaction.execute("DELETE FROM series WHERE last_seen < ?", (now - longest,))
            transaction.execute("DELETE FROM sources WHERE seen_at < ?", (now - 7 * 86_400,))
            self._series.clear()
            self._stamps.clear()

    def clear(self) -> None:
        """Removes every metric, and those under way. Which batches were counted stays known."""
        with self._writing() as transaction:
            transaction.execute("DELETE FROM points")
            transaction.execute("DELETE FROM series")
            self._series.clear()
            self._stamps.clear()
            newest = max(self._since_ms, self._newest_since_ms)
            self._since_ms = max(newest + 1, int(self._clock.now().timestamp() * 1000))

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: kept whole, or not at all."""
        with self._write_lock, _translated():
            try:
                with self._writer as transaction:
                    transaction.execute("BEGIN IMMEDIATE")
                    yield transaction
            except BaseException:
                self._series.clear()  # may name series that were rolled back
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, _translated():
            yield self._reader

    def _is_new(self, transaction: sqlite3.Connection, batch: MetricBatch) -> bool:
        row = transaction.execute("SELECT sequence FROM sources WHERE source = ?", (batch.source,)).fetchone()
        if (row is not None and batch.sequence <= row[0]) or 0 < batch.since_ms < self._since_ms:
            return False
        self._newest_since_ms = max(self._newest_since_ms, batch.since_ms)
        seen_at = int(self._clock.now().timestamp())
        transaction.execute("REPLACE INTO sources VALUES (?, ?, ?)", (batch.source, batch.sequence, seen_at))
        return True

    def _add(self, transaction: sqlite3.Connection, points: Sequence[MetricPoint]) -> None:
        now = int(self._clock.now().timestamp())
        rows = [
            (
                self._series_id(transaction, point),
                resolution,
                point.window_start // resolution * resolution,
                point.count,
                point.sum,
                point.minimum,
                point.maximum,
                pack(point.sketch),
            )
            for point in points
            for resolution, kept_s in RETENTION_S.items()
            if point.window_start > now - kept_s
        ]
        transaction.executemany(_ADD_POINT, rows)

    def _note(self, points: Sequence[MetricPoint]) -> None:
        """After the commit: who looks because of it must find it."""
        with self._stamp_lock:
            self._stamp += 1
            for point in points:
                self._stamps[_metric(point)] = self._stamp

    def _series_id(self, transaction: sqlite3.Connection, point: MetricPoint) -> int:
        metric = _metric(point)
        known = self._series.get((metric, point.unit))
        # Once a minute is often enough to know what was seen within hours.
        if known is not None and point.window_start < known[1] + 60:
            return known[0]
        row = transaction.execute(
            _ADD_SERIES,
            (
                *(point.account, point.region, point.namespace, point.name),
                *(_dump_dimensions(point.dimensions), point.unit, point.window_start),
            ),
        ).fetchone()
        self._series[metric, point.unit] = (row[0], row[1])
        return int(row[0])

    def _sweep_when_due(self) -> None:
        now = self._clock.monotonic()
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            self.sweep()


def _metric(point: MetricPoint) -> Metric:
    return Metric(point.account, point.region, point.namespace, point.name, point.dimensions)


def _series_of(reader: sqlite3.Connection, metric: Metric) -> list[tuple[str, int]]:
    """The metric's units, and the series that holds each."""
    dimensions = _dump_dimensions(metric.dimensions)
    key = (metric.account, metric.region, metric.namespace, metric.name, dimensions)
    return reader.execute(_SELECT_SERIES, key).fetchall()


def _dump_dimensions(dimensions: Dimensions) -> str:
    return json.dumps(dimensions, separators=(",", ":"))


def _load_dimensions(text: str) -> Dimensions:
    return decode_json(text, Dimensions)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise MetricsUnavailable(f"the metrics' file does not answer: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.create_function("merge_sketches", 2, merge_packed, deterministic=True)
    return connection


_TABLES = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    dimensions TEXT NOT NULL, unit TEXT NOT NULL, last_seen INTEGER NOT NULL,
    UNIQUE (account, region, namespace, name, dimensions, unit)
);
CREATE TABLE IF NOT EXISTS points (
    series INTEGER NOT NULL, resolution INTEGER NOT NULL, start INTEGER NOT NULL,
    count REAL NOT NULL, sum REAL NOT NULL, minimum REAL NOT NULL, maximum REAL NOT NULL, sketch BLOB NOT NULL,
    PRIMARY KEY (series, resolution, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
    source TEXT PRIMARY KEY, sequence INTEGER NOT NULL, seen_at INTEGER NOT NULL
) WITHOUT ROWID;
"""

_ADD_SERIES = """
INSERT INTO series (account, region, namespace, name, dimensions, unit, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET last_seen = max(last_seen, excluded.last_seen)
RETURNING id, last_seen
"""

_ADD_POINT = """
INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    count = count + excluded.count,
    sum = sum + excluded.sum,
    minimum = min(minimum, excluded.minimum),
    maximum = max(maximum, excluded.maximum),
    sketch = merge_sketches(sketch, excluded.sketch)
"""

_SELECT_SERIES = """
SELECT unit, id FROM series
WHERE account = ? AND region = ? AND namespace = ? AND name = ? AND dimensions = ? ORDER BY unit
"""

_SELECT_POINTS = """
SELECT start, count, sum, minimum, maximum, sketch FROM points
WHERE series = ? AND resolution = ? AND start >= ? AND start < ? ORDER BY start
"""

_SELECT_SUMS = """
SELECT ?1 + (start - ?1) / ?2 * ?2, sum(count), sum(sum), min(minimum), max(maximum), x'90' FROM points
WHERE series = ?3 AND resolution = ?4 AND start >= ?5 AND start < ?6 GROUP BY 1 ORDER BY 1
"""  # x'90' is an empty sketch

_SELECT_METRICS = """
SELECT namespace, name, dimensions FROM series
WHERE account = ? AND region = ? AND (? IS NULL OR namespace = ?) AND (? IS NULL OR name = ?) AND last_seen > ?
GROUP BY namespace, name, dimensions
"""

_DELETE_OLD = "DELETE FROM points WHERE series = ? AND resolution = ? AND start <= ?"
