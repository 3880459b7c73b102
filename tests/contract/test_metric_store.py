"""The metric store counts everything once, at every resolution, whatever the order in which it comes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.links.metrics import MetricBatch, MetricPoint
from clary.telemetry.aggregates import Aggregate, Metric
from clary.telemetry.sketches import bucket, merge
from clary.telemetry.store import RETENTION_S, MetricStore, MetricsUnavailable
from clary.testing.clock import FakeClock

METRIC = Metric("123456789012", "us-east-1", "AWS/SageMaker", "ModelLatency", (("EndpointName", "e"),))
DAY = 86_400


class Fixture:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.now = int(self.clock.now().timestamp())
        self.store = MetricStore(path, self.clock)

    def query(self, start: int, end: int, period: int, metric: Metric = METRIC) -> list[Aggregate]:
        return self.store.query(metric, start, end, period).get("Microseconds", [])


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "metrics.db")
    yield fixture
    fixture.store.close()


def point(
    window_start: int, *values: float, metric: Metric = METRIC, unit: str = "Microseconds"
) -> MetricPoint:
    sketch: dict[int, float] = {}
    for value in values:
        merge(sketch, {bucket(value): 1})
    return MetricPoint(
        account=metric.account,
        region=metric.region,
        namespace=metric.namespace,
        name=metric.name,
        dimensions=metric.dimensions,
        unit=unit,
        window_start=window_start,
        count=len(values),
        sum=sum(values),
        minimum=min(values),
        maximum=max(values),
        sketch=sketch,
    )


def batch(sequence: int, *points: MetricPoint, source: str = "gateway-0:1:1") -> MetricBatch:
    return MetricBatch(source, sequence, points)


def test_L02_points_of_several_sources_add_up(fixture: Fixture) -> None:
    start = fixture.now - 60
    fixture.store.ingest(batch(1, point(start, 1, 5), source="a"))
    fixture.store.ingest(batch(1, point(start, 3), point(start + 5, 9), source="b"))
    (seen,) = fixture.query(start, start + 60, 60)
    assert (seen.start, seen.count, seen.sum, seen.minimum, seen.maximum) == (start, 4, 18, 1, 9)
    assert seen.average == 4.5
    first, second = fixture.query(start, start + 60, 5)
    assert (first.count, second.count) == (3, 1)


def test_a_batch_counts_once(fixture: Fixture) -> None:
    start = fixture.now - 60
    first, second = batch(1, point(start, 1)), batch(2, point(start, 1))
    assert [fixture.store.ingest(each) for each in (first, first, second, first, second)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert fixture.query(start, start + 60, 60)[0].count == 2


def test_batches_count_once_across_restarts(fixture: Fixture) -> None:
    start = fixture.now - 60
    fixture.store.ingest(batch(1, point(start, 1)))
    fixture.store.close()
    fixture.store = MetricStore(fixture.path, fixture.clock)
    assert not fixture.store.ingest(batch(1, point(start, 1)))
    assert fixture.query(start, start + 60, 60)[0].count == 1


def test_periods_without_points_are_absent(fixture: Fixture) -> None:
    start = fixture.now - 600
    fixture.store.ingest(batch(1, point(start, 1), point(start + 300, 2)))
    assert [seen.start for seen in fixture.query(start, start + 600, 60)] == [start, start + 300]
    assert fixture.query(start + 60, start + 300, 60) == []


def test_other_dimensions_and_regions_are_other_metrics(fixture: Fixture) -> None:
    fixture.store.ingest(batch(1, point(fixture.now - 60, 1)))
    for other in (
        Metric("123456789012", "us-east-1", "AWS/SageMaker", "ModelLatency", ()),
        Metric("123456789012", "eu-west-1", "AWS/SageMaker", "ModelLatency", METRIC.dimensions),
        Metric("123456789012", "us-east-1", "AWS/SageMaker", "modellatency", METRIC.dimensions),
    ):
        assert fixture.query(fixture.now - 3600, fixture.now, 60, other) == []


def test_units_stay_apart(fixture: Fixture) -> None:
    start = fixture.now - 60
    fixture.store.ingest(batch(1, point(start, 1), point(start, 7, unit="Seconds")))
    found = fixture.store.query(METRIC, start, start + 60, 60)
    assert {unit: [seen.sum for seen in periods] for unit, periods in found.items()} == {
        "Microseconds": [1],
        "Seconds": [7],
    }
    assert list(fixture.store.query(METRIC, start, start + 60, 60, "Seconds")) == ["Seconds"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    windows=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 1000)), min_size=1, max_size=30),
    period=st.sampled_from([5, 10, 30, 60, 120, 300, 3600]),
    shift=st.sampled_from([0, 60, 300, 540]),
)
def test_every_resolution_tells_the_same(
    tmp_path: Path, windows: list[tuple[int, int]], period: int, shift: int
) -> None:
    fixture = Fixture(tmp_path / "metrics.db")
    fixture.store.clear()
    base = fixture.now - 3600
    fixture.store.put(point(base + window * 5, value) for window, value in windows)
    start = base + shift
    expected: dict[int, list[int]] = {}
    for window, value in windows:
        at = base + window * 5
        if at >= start:
            expected.setdefault(start + (at - start) // period * period, []).append(value)
    found = fixture.query(start, base + 7200, period)
    fixture.store.close()
    assert {seen.start: (seen.count, seen.sum, seen.minimum, seen.maximum) for seen in found} == {
        at: (len(values), sum(values), min(values), max(values)) for at, values in expected.items()
    }


def test_percentiles_come_out_of_merged_sketches(fixture: Fixture) -> None:
    start = fixture.now - 60
    for sequence in range(1, 11):
        values = [float(value) for value in range(sequence, 1001, 10)]
        fixture.store.ingest(batch(sequence, point(start + sequence % 2 * 5, *values)))
    (seen,) = fixture.query(start, start + 60, 60)
    assert seen.percentile(99) == pytest.approx(990, rel=0.02)
    assert seen.percentile(0) == 1
    assert seen.percentile(100) == 1000


def test_no_percentile_is_made_up_from_bare_statistics(fixture: Fixture) -> None:
    start = fixture.now - 60
    bare = point(start, 1, 2, 3)
    bare.sketch.clear()
    fixture.store.put([bare])
    (seen,) = fixture.query(start, start + 60, 60)
    assert seen.percentile(50) is None


def test_points_fall_off_as_cloudwatch_drops_them(fixture: Fixture) -> None:
    start = fixture.now // 3600 * 3600
    fixture.store.ingest(batch(1, point(start, 1)))
    kept = {5: 1, 60: 1, 300: 1, 3600: 1}
    for age, gone in ((4 * 3600, 5), (16 * DAY, 60), (64 * DAY, 300), (456 * DAY, 3600)):
        fixture.clock.advance(start + age - fixture.clock.now().timestamp())
        fixture.store.sweep()
        kept[gone] = 0
        for resolution in RETENTION_S:
            found = fixture.query(start, start + 3600, resolution)
            assert bool(found) == any(kept[each] for each in RETENTION_S if each == resolution), (
                age,
                resolution,
            )
    assert fixture.store.metrics("123456789012", "us-east-1", since_s=10**9) == []


def test_late_points_go_where_they_are_still_kept(fixture: Fixture) -> None:
    start = fixture.now - 20 * DAY
    start -= start % 300
    fixture.store.ingest(batch(1, point(start, 4)))
    assert fixture.query(start, start + 300, 60) == []
    assert [seen.sum for seen in fixture.query(start, start + 300, 300)] == [4]


def test_metrics_are_listed_while_they_are_recent(fixture: Fixture) -> None:
    other = Metric("123456789012", "us-east-1", "Mine", "x", ())
    fixture.store.ingest(batch(1, point(fixture.now, 1), point(fixture.now - 4 * 3600, 1, metric=other)))
    listed = fixture.store.metrics("123456789012", "us-east-1")
    assert set(listed) == {METRIC, other}
    assert fixture.store.metrics("123456789012", "us-east-1", since_s=3 * 3600) == [METRIC]
    assert fixture.store.metrics("123456789012", "us-east-1", namespace="Mine") == [other]
    assert fixture.store.metrics("123456789012", "us-east-1", name="ModelLatency") == [METRIC]
    assert fixture.store.metrics("123456789012", "eu-west-1") == []
    fixture.clock.advance(14 * DAY + 1)
    assert fixture.store.metrics("123456789012", "us-east-1") == []


def test_a_busy_metric_stays_listed(fixture: Fixture) -> None:
    for sequence in range(1, 6):
        fixture.store.ingest(batch(sequence, point(int(fixture.clock.now().timestamp()), 1)))
        fixture.clock.advance(3 * DAY)
    fixture.clock.advance(10 * DAY)
    assert fixture.store.metrics("123456789012", "us-east-1") == [METRIC]


def test_clear_empties_it_and_counting_goes_on(fixture: Fixture) -> None:
    start = fixture.now - 60
    fixture.store.ingest(batch(1, point(start, 1)))
    fixture.store.clear()
    assert fixture.query(start, start + 60, 60) == []
    assert fixture.store.metrics("123456789012", "us-east-1") == []
    assert not fixture.store.ingest(batch(1, point(start, 1)))
    assert fixture.store.ingest(batch(2, point(start, 8)))
    assert fixture.query(start, start + 60, 60)[0].sum == 8


def test_U05_what_was_under_way_when_it_was_cleared_counts_no_more(fixture: Fixture) -> None:
    start = fixture.now - 60
    before = replace(batch(1, point(start, 1)), since_ms=fixture.now * 1000 - 5000)
    fixture.store.clear()
    assert not fixture.store.ingest(before)
    fixture.clock.advance(1.0)
    fixture.store.clear()
    assert not fixture.store.ingest(replace(batch(2, point(start, 2)), since_ms=fixture.now * 1000))
    after = replace(batch(3, point(start, 3)), since_ms=fixture.store.since_ms)
    assert fixture.store.ingest(after)
    assert [each.sum for each in fixture.query(start, start + 60, 60)] == [3]


def test_U05_what_was_under_way_counts_no_more_though_its_sender_began_before_the_clock_was_set_back(
    fixture: Fixture,
) -> None:
    start, ahead_ms = fixture.now - 60, (fixture.now + 3600) * 1000
    assert fixture.store.ingest(replace(batch(1, point(start, 1)), since_ms=ahead_ms))
    fixture.store.clear()
    assert not fixture.store.ingest(replace(batch(2, point(start, 2)), since_ms=ahead_ms))
    assert fixture.store.since_ms > ahead_ms, "or the sender would not begin anew"
    assert fixture.store.ingest(replace(batch(3, point(start, 3)), since_ms=fixture.store.since_ms))
    assert [each.sum for each in fixture.query(start, start + 60, 60)] == [3]


def test_a_failed_write_leaves_nothing_half_done(fixture: Fixture) -> None:
    start = fixture.now - 60
    bad = point(start, 2, metric=Metric("123456789012", "us-east-1", "AWS/SageMaker", "Bad", ()))
    bad.sketch[1] = float("nan")
    with pytest.raises(ValueError):
        fixture.store.ingest(batch(1, point(start, 1), bad))
    assert fixture.query(start, start + 60, 60) == []
    assert fixture.store.ingest(batch(1, point(start, 1)))
    assert fixture.query(start, start + 60, 60)[0].count == 1


def test_a_full_disk_refuses_and_keeps_what_it_had(fixture: Fixture) -> None:
    start = fixture.now - 60
    fixture.store.ingest(batch(1, point(start, 1)))
    pages = fixture.store._writer.execute("PRAGMA page_count").fetchone()[0]
    fixture.store._writer.execute(f"PRAGMA max_page_count = {pages}")
    many = [point(start, 1, metric=replace(METRIC, name=f"m{n}")) for n in range(500)]
    with pytest.raises(MetricsUnavailable):
        fixture.store.ingest(batch(2, *many))
    assert [seen.count for seen in fixture.query(start, start + 60, 60)] == [1]
    fixture.store._writer.execute("PRAGMA max_page_count = 1000000")
    assert fixture.store.ingest(batch(2, *many))
    assert fixture.query(start, start + 60, 60, replace(METRIC, name="m499"))[0].count == 1
    assert len(fixture.store.metrics("123456789012", "us-east-1")) == 501


def test_threads_write_and_read_at_once(fixture: Fixture) -> None:
    start = fixture.now - 60

    def write(source: int) -> None:
        for sequence in range(1, 21):
            fixture.store.ingest(batch(sequence, point(start, 1), source=str(source)))
            fixture.query(start, start + 60, 60)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert fixture.query(start, start + 60, 60)[0].count == 80


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.floats(-1e6, 1e6)), max_size=12),
    st.sampled_from([5, 10, 30, 60]),
)
def test_L02_without_sketches_the_same_statistics_come_back(
    fixture: Fixture, seen: list[tuple[int, float]], period: int
) -> None:
    fixture.store.clear()
    start = fixture.now // 300 * 300 - 600
    fixture.store.put([point(start + 5 * place, value) for place, value in seen])
    whole = fixture.query(start, start + 600, period)
    plain = fixture.store.query(METRIC, start, start + 600, period, has_sketches=False).get(
        "Microseconds", []
    )
    assert [(p.start, p.count, p.minimum, p.maximum) for p in plain] == [
        (w.start, w.count, w.minimum, w.maximum) for w in whole
    ]
    # The order in which they are added is nobody's promise.
    assert [p.sum for p in plain] == pytest.approx([w.sum for w in whole], abs=1e-6)
