"""Sketches keep every percentile within one per cent, however they were put together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.telemetry.sketches import MOST_BUCKETS, Sketch, bucket, merge, quantile, representative

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)


def sketch_of(values: list[float]) -> Sketch:
    sketch: Sketch = {}
    for value in values:
        merge(sketch, {bucket(value): 1})
    return sketch


@settings(max_examples=100)
@given(st.lists(finite, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_per_cent_of_a_value_at_its_rank(
    values: list[float], fraction: float
) -> None:
    found = quantile(sketch_of(values), fraction)
    assert found is not None
    low, high = (
        float(np.quantile(values, min(max(near, 0), 1), method="inverted_cdf"))
        for near in (fraction - 1e-9, fraction + 1e-9)
    )
    margin = 0.0101 * max(abs(low), abs(high)) + 1e-12
    assert low - margin <= found <= high + margin


@settings(max_examples=50)
@given(st.lists(finite, max_size=50), st.lists(finite, max_size=50))
def test_merging_equals_counting_together(a: list[float], b: list[float]) -> None:
    assert merge(sketch_of(a), sketch_of(b)) == sketch_of([*a, *b])


@given(finite)
def test_a_bucket_stands_for_its_values(value: float) -> None:
    assert representative(bucket(value)) == pytest.approx(value, rel=0.0101, abs=1e-17)


@given(finite, finite)
def test_buckets_sort_as_their_values(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert bucket(low) <= bucket(high)


def test_latencies_agree_with_numpy() -> None:
    values = np.random.default_rng(7).lognormal(6, 1, 5000)
    sketch = sketch_of([float(value) for value in values])
    for percent in (1, 50, 90, 99, 99.9):
        assert quantile(sketch, percent / 100) == pytest.approx(np.percentile(values, percent), rel=0.02)


def test_too_many_buckets_join_at_the_low_end() -> None:
    sketch = merge({}, dict.fromkeys(range(1, MOST_BUCKETS + 501), 1.0))
    assert len(sketch) == MOST_BUCKETS
    assert sum(sketch.values()) == MOST_BUCKETS + 500
    assert sketch[MOST_BUCKETS + 500] == 1


def test_nothing_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
