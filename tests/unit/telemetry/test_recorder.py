"""The recorder batches what was seen, and keeps it until somebody has it."""

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.links.metrics import MetricBatch, MetricPoint
from clary.telemetry.metrics import Recorder, Series
from clary.telemetry.sketches import bucket
from clary.testing.clock import FakeClock


def invocations(recorder: Recorder) -> Series:
    return recorder.series(
        "123456789012", "us-east-1", "AWS/SageMaker", "Invocations", {"VariantName": "v", "EndpointName": "e"}
    )


def drained(recorder: Recorder) -> MetricBatch:
    batch = recorder.drain()
    assert batch is not None
    return batch


def only_point(recorder: Recorder) -> MetricPoint:
    (point,) = drained(recorder).points
    return point


def test_L02_a_point_holds_what_was_observed() -> None:
    recorder = Recorder("gateway-0:1:2", FakeClock())
    series = invocations(recorder)
    for value in (3.0, 1.0, 2.0, 0.0):
        series.observe(value)
    point = only_point(recorder)
    assert (point.count, point.sum, point.minimum, point.maximum) == (4, 6, 0, 3)
    assert point.sketch == {bucket(value): 1 for value in (0.0, 1.0, 2.0, 3.0)}
    assert point.dimensions == (("EndpointName", "e"), ("VariantName", "v"))


def test_values_only_above_or_below_the_first_keep_their_extremes() -> None:
    recorder = Recorder("s", FakeClock())
    series = invocations(recorder)
    for value in (-5.0, -7.0):
        series.observe(value)
    point = only_point(recorder)
    assert (point.minimum, point.maximum) == (-7, -5)


@given(st.lists(st.lists(st.floats(-5, 1e7) | st.just(0.0), max_size=20), max_size=4))
@settings(max_examples=100, deadline=None)
def test_L02_many_values_at_once_count_like_each_by_itself(values: list[list[float]]) -> None:
    recorder = Recorder("s", FakeClock())
    together, apart = invocations(recorder), invocations(recorder)
    for some in values:
        together.observe_all(some)
        for value in some:
            apart.observe(value)
    if any(values):
        first, second = drained(recorder).points
        assert (first.count, first.minimum, first.maximum) == (second.count, second.minimum, second.maximum)
        assert first.sketch == second.sketch
        assert first.sum == pytest.approx(second.sum, abs=1e-6)  # sums in another order may nearly cancel out
    else:
        assert recorder.drain() is None


def test_add_counts_a_value_many_times() -> None:
    recorder = Recorder("s", FakeClock())
    series = invocations(recorder)
    series.add(2.0, 3)
    series.add(9.0, 0)
    point = only_point(recorder)
    assert (point.count, point.sum, point.maximum, point.sketch) == (3, 6, 2, {bucket(2.0): 3})


def test_each_drain_starts_anew() -> None:
    clock = FakeClock()
    recorder = Recorder("s", clock)
    series = invocations(recorder)
    series.observe(1)
    first = only_point(recorder)
    assert recorder.drain() is None
    clock.advance(5)
    series.observe(4)
    second = only_point(recorder)
    assert (first.count, second.count, second.minimum) == (1, 1, 4)


def test_a_point_lies_in_the_window_of_the_middle_of_its_time() -> None:
    clock = FakeClock()
    began = int(clock.now().timestamp())
    assert began % 5 == 0
    recorder = Recorder("s", clock)
    series = invocations(recorder)
    clock.advance(12)
    series.observe(1)
    assert only_point(recorder).window_start == began + 5


def test_batches_are_kept_until_acknowledged() -> None:
    recorder = Recorder("s", FakeClock())
    series = invocations(recorder)
    batches = []
    for _ in range(3):
        series.observe(1)
        batches.append(drained(recorder))
    assert [batch.sequence for batch in batches] == [1, 2, 3]
    assert recorder.pending() == batches
    assert recorder.pending(after=2) == batches[2:]
    recorder.acknowledge(2)
    assert recorder.pending() == batches[2:]


def test_batches_nobody_wanted_for_fifteen_minutes_are_given_up() -> None:
    clock = FakeClock()
    recorder = Recorder("s", clock, keep_s=900)
    series = invocations(recorder)
    series.observe(1)
    recorder.drain()
    clock.advance(901)
    series.observe(1)
    later = drained(recorder)
    assert recorder.pending() == [later]


def test_a_dropped_handle_leaves_nothing_behind() -> None:
    recorder = Recorder("s", FakeClock())
    invocations(recorder).observe(1)
    assert only_point(recorder).count == 1
    assert recorder.drain() is None


def test_a_batch_survives_the_link() -> None:
    recorder = Recorder("s", FakeClock())
    series = invocations(recorder)
    for value in (-2.5, 0, 1e9):
        series.observe(value)
    batch = drained(recorder)
    assert msgspec.json.decode(msgspec.json.encode(batch), type=MetricBatch) == batch


def test_the_writing_side_imports_no_database_and_no_aws() -> None:
    script = "import sys, clary.telemetry.metrics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"sqlite3", "sqlalchemy", "botocore", "clary.links.hosts"} & set(done.stdout.split())


def test_U05_what_was_seen_before_a_reset_is_thrown_away() -> None:
    clock = FakeClock()
    recorder = Recorder("gateway-0:1:2", clock)
    series = invocations(recorder)
    series.observe(1.0)
    before = drained(recorder)
    series.observe(2.0)
    clock.advance(1.0)
    moment = int(clock.now().timestamp() * 1000)
    recorder.begin(moment)
    assert recorder.pending() == []
    assert recorder.drain() is None
    series.observe(3.0)
    recorder.begin(moment)  # told twice
    after = drained(recorder)
    assert (after.sequence, after.since_ms) == (before.sequence + 1, moment)
    assert [(point.count, point.sum) for point in after.points] == [(1, 3)]
    assert before.since_ms < moment
    recorder.begin(0)  # by a control that knows of no reset
    assert recorder.pending() == [after]
