"""Which of several policies is followed, and when none is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from clary.domain.scaling import Change, NotScaled, ScalableTarget, Suspended, TargetState
from clary.domain.scaling_decisions import (
    STAY,
    Proposal,
    Views,
    base,
    blocks_scaling_in,
    decide,
)

_NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
_TARGET = ScalableTarget("endpoint/e/variant/v", "e", "v", 2, 8, "arn:aws:iam::1:role/r")
_SEEN = TargetState(limits=(2, 8))


def wish(capacity: int, *, tracking: bool = True, name: str = "p") -> Proposal:
    return Proposal(name, f"{name}-alarm", "ALARM", capacity, 4, tracking)


def test_K05_limits_come_first_and_say_who_moved_them() -> None:
    new = decide(_TARGET, TargetState(limits=(1, 8)), 1, Views((wish(5),)))
    assert (new.capacity, new.cause, new.by) == (2, "minimum capacity was set to 2", None)
    assert decide(_TARGET, TargetState(), 9, Views()).cause == "maximum capacity was set to 8"
    by_hand = decide(_TARGET, _SEEN, 9, Views())
    assert by_hand.capacity == 8
    assert by_hand.cause == "the endpoint was updated to 9 instances, above the maximum capacity of 8"


def test_K01_the_largest_need_is_followed_and_held_to_the_maximum() -> None:
    decision = decide(_TARGET, _SEEN, 3, Views((wish(4, name="a"), wish(6, name="b"), wish(2, name="c"))))
    assert decision.by is not None and (decision.capacity, decision.by.policy) == (6, "b")
    assert decision.cause == "monitor alarm b-alarm in state ALARM triggered policy b"
    assert decide(_TARGET, _SEEN, 3, Views((wish(60),))).capacity == 8


def test_K01_scaling_in_needs_every_tracking_policy() -> None:
    both = Views((wish(3, name="a"), wish(4, name="b")))
    assert decide(_TARGET, _SEEN, 6, both).capacity == 4
    assert decide(_TARGET, _SEEN, 6, replace(both, vetoes=True)) == STAY


def test_K02_a_step_policy_scales_in_by_itself() -> None:
    steps = Views((wish(4, tracking=False), wish(3)), vetoes=True)
    assert decide(_TARGET, _SEEN, 6, steps).capacity == 4


def test_K01_nobody_scales_in_while_somebody_wants_to_stay() -> None:
    decision = decide(_TARGET, _SEEN, 6, Views((wish(3), wish(6, name="b"))))
    assert decision.capacity is None
    assert decision.not_scaled == NotScaled("AlreadyAtDesiredCapacity", current=6)


def test_K03_suspended_directions_stay() -> None:
    held = replace(_TARGET, suspended=Suspended(scaling_in=True, scaling_out=True))
    assert decide(held, _SEEN, 4, Views((wish(6),))) == STAY
    assert decide(held, _SEEN, 4, Views((wish(3),))) == STAY


def test_K05_at_a_limit_the_reason_is_told() -> None:
    assert decide(_TARGET, _SEEN, 8, Views((wish(9),))).not_scaled == NotScaled(
        "AlreadyAtMaxCapacity", most=8
    )
    assert decide(_TARGET, _SEEN, 2, Views((wish(1),))).not_scaled == NotScaled(
        "AlreadyAtMinCapacity", least=2
    )


def test_K03_what_was_just_added_counts_towards_the_next_scaling_out() -> None:
    state = TargetState(last_out=Change(_NOW, 2, 4))
    assert base(state, 4, 300, _NOW + timedelta(seconds=299)) == 2
    assert base(state, 4, 300, _NOW + timedelta(seconds=300)) == 4
    assert base(state, 5, 300, _NOW) == 5, "somebody else changed it meanwhile"


def test_K03_scaling_in_waits_for_both_cooldowns() -> None:
    state = TargetState(last_out=Change(_NOW, 2, 4), last_in=Change(_NOW, 4, 3))
    assert blocks_scaling_in(state, 10, 60, _NOW) == _NOW + timedelta(seconds=60)
    assert blocks_scaling_in(state, 10, 60, _NOW + timedelta(seconds=60)) is None


@given(
    current=st.integers(1, 12),
    capacities=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=4),
    vetoes=st.booleans(),
)
def test_K01_K05_decisions_keep_to_the_rules(
    current: int, capacities: list[tuple[int, bool]], vetoes: bool
) -> None:
    proposals = tuple(
        wish(capacity, tracking=is_tracking, name=str(n))
        for n, (capacity, is_tracking) in enumerate(capacities)
    )
    decision = decide(_TARGET, _SEEN, current, Views(proposals, vetoes))
    if decision.capacity is not None:
        assert 2 <= decision.capacity <= 8 and decision.capacity != current and decision.cause
    if not 2 <= current <= 8:
        return
    wanted = [p.capacity for p in proposals]
    if any(capacity > current for capacity in wanted) and current < 8:
        assert decision.capacity == min(8, max(wanted))
    if decision.capacity is not None and decision.capacity < current:
        assert all(capacity < current for capacity in wanted)
        assert decision.capacity >= max(2, min(wanted))
