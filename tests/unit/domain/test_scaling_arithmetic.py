"""The arithmetic of target tracking and step scaling."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.scaling import Step, Stepping
from clary.domain.scaling_arithmetic import (
    Counts,
    adjusted,
    held_to,
    needed_at_most,
    needed_now,
    needed_soon,
    scaled_in,
    step_at,
    stepped,
    tracked,
)


@pytest.mark.parametrize(
    ("capacity", "value", "target", "expected"),
    [(2, 60.0, 50.0, 3), (10, 70.0, 50.0, 14), (4, 50.0, 50.0, 4), (3, 0.1, 0.1, 3), (5, 9.0, 50.0, 1)],
)
def test_K01_target_tracking_is_proportional(
    capacity: int, value: float, target: float, expected: int
) -> None:
    assert tracked(capacity, value, target) == expected


@given(
    capacity=st.integers(1, 1000),
    value=st.floats(0, 1e6),
    target=st.floats(1e-3, 1e6),
)
def test_K01_the_capacity_proposed_brings_the_metric_to_the_target_and_no_smaller_one_does(
    capacity: int, value: float, target: float
) -> None:
    found = tracked(capacity, value, target)
    assert found * target >= capacity * value * (1 - 1e-6) - 1e-6 * target
    if found > 0:
        assert (found - 1) * target < capacity * value * (1 + 1e-6) + 1e-6 * target


def test_K01_a_burst_shows_in_the_first_seconds() -> None:
    """500 requests a second against 3,000 a minute for each instance: ten are needed."""
    calm = (250.0,) * 10
    half = Counts((*calm, 1375.0, 0.0), (3000.0,) * 15)
    assert 5 <= needed_soon(half, 3000.0, 1) <= 6
    assert needed_soon(Counts((*calm, 1375.0, 2500.0), (3000.0,) * 15), 3000.0, 1) == 10


def test_K01_chance_alone_does_not_scale_out() -> None:
    """A minute's worth of 25 against a target of 30: single windows often look like more."""
    dice = random.Random(7)
    seconds = [sum(dice.random() < 25 / 600 for _ in range(50)) for _ in range(4000)]
    looks = [Counts(tuple(map(float, seconds[n - 12 : n])), (25.0,) * 15) for n in range(12, 4000)]
    wrong = sum(needed_soon(counts, 30.0, 1) > 1 for counts in looks)
    assert wrong / len(looks) < 0.01


def test_K01_three_minutes_above_the_target_are_believed() -> None:
    assert needed_soon(Counts((0.0,) * 12, (31.0, 31.0, 31.0)), 30.0, 1) == 2
    assert needed_soon(Counts((0.0,) * 12, (31.0, 29.0, 31.0)), 30.0, 1) == 0
    assert needed_soon(Counts((0.0,) * 12, (31.0, None, 31.0)), 30.0, 1) == 0


@given(
    fine=st.lists(st.integers(0, 5000), min_size=12, max_size=12),
    target=st.floats(1.0, 1e5),
)
def test_K01_what_is_needed_soon_never_exceeds_the_busiest_moment(fine: list[int], target: float) -> None:
    counts = Counts(tuple(map(float, fine)))
    assert needed_soon(counts, target, 1) <= math.ceil(max(fine) * 12 / target)


def test_K01_awss_rule_goes_by_the_newest_minute_and_scaling_in_by_the_busiest() -> None:
    counts = Counts((), (10.0, 95.0, 61.0))
    assert needed_now(counts, 30.0) == 3
    assert needed_at_most(counts, 30.0) == 4
    assert needed_now(Counts(), 30.0) == needed_at_most(Counts((), (None,)), 30.0) == 0


def test_K01_scaling_in_takes_at_most_half_at_once() -> None:
    assert [scaled_in(10, 1), scaled_in(10, 7), scaled_in(1, 0), scaled_in(3, 1)] == [5, 7, 0, 2]


@given(st.integers(-50, 50), st.integers(1, 50), st.integers(0, 50))
def test_K05_limits_hold(capacity: int, least: int, more: int) -> None:
    assert least <= held_to(capacity, least, least + more) <= least + more


@pytest.mark.parametrize(
    ("capacity", "percent", "least", "expected"),
    [
        (10, 10, 0, 11),
        (10, 25, 0, 12),
        (3, 10, 0, 4),
        (10, -25, 0, 8),
        (3, -10, 0, 2),
        (10, 10, 3, 13),
        (10, -10, 3, 7),
        (10, 0, 3, 10),
        (100, 7, 0, 107),
    ],
)
def test_K02_percents_are_rounded_as_documented(
    capacity: int, percent: int, least: int, expected: int
) -> None:
    assert adjusted(capacity, "PercentChangeInCapacity", percent, least) == expected


def test_K02_other_adjustments() -> None:
    assert adjusted(4, "ChangeInCapacity", -3) == 1
    assert adjusted(4, "ExactCapacity", 9) == 9


_UP = (Step(0.0, 10.0, 1), Step(10.0, 20.0, 2), Step(20.0, None, 3))
_DOWN = (Step(-10.0, 0.0, -1), Step(None, -10.0, -2))


@pytest.mark.parametrize(
    ("distance", "amount"), [(0.0, 1), (9.9, 1), (10.0, 2), (20.0, 3), (1e9, 3), (-0.1, None)]
)
def test_K02_above_the_threshold_a_step_holds_its_lower_end(distance: float, amount: int | None) -> None:
    found = step_at(_UP, distance)
    assert (found.amount if found else None) == amount


@pytest.mark.parametrize(
    ("distance", "amount"), [(0.0, -1), (-9.9, -1), (-10.0, -2), (-1e9, -2), (0.1, None)]
)
def test_K02_below_the_threshold_a_step_holds_its_upper_end(distance: float, amount: int | None) -> None:
    found = step_at(_DOWN, distance)
    assert (found.amount if found else None) == amount


def test_K02_a_step_is_applied_to_the_base() -> None:
    policy = Stepping("ChangeInCapacity", _UP)
    assert stepped(policy, 4, 15.0) == 6
    assert stepped(policy, 4, -1.0) is None


@settings(max_examples=200)
@given(distance=st.floats(-1e6, 1e6), edges=st.lists(st.integers(-100, 100), unique=True, max_size=6))
def test_K02_contiguous_steps_leave_no_distance_out(distance: float, edges: list[int]) -> None:
    ends = [None, *map(float, sorted(edges)), None]
    steps = [Step(low, high, 1) for low, high in itertools.pairwise(ends)]
    assert step_at(steps, distance) is not None
