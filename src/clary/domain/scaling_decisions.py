"""Which capacity a scalable target gets: what its policies propose, weighed by Application Auto Scaling's rules.

Limits come first: a capacity outside of them goes to the nearer one at once. Then scaling out: whoever needs most is
followed, and nobody is asked to agree. Scaling in needs that nobody wants out, that every target tracking policy
which scales in at all agrees, and that no cool-down runs; the proposal that keeps most is followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clary.domain.scaling import Change, NotScaled, ScalableTarget, TargetState
from clary.domain.scaling_arithmetic import held_to


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one policy asks for while one of its alarms is in ALARM (or in whichever state sets it off).

    `capacity` is not held to the limits; `base` is what it was reckoned from. `is_tracking`: all of its sort must
    agree before the capacity falls.
    """

    policy: str
    alarm: str
    alarm_state: str
    capacity: int
    base: int
    is_tracking: bool = False

    @property
    def cause(self) -> str:
        return f"monitor alarm {self.alarm} in state {self.alarm_state} triggered policy {self.policy}"


@dataclass(frozen=True, slots=True)
class Views:
    """All that the policies say. `vetoes`: a target tracking policy that scales in is not ready to."""

    proposals: tuple[Proposal, ...] = ()
    vetoes: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`capacity` None: it stays, and `not_scaled` says why although somebody asked for something."""

    capacity: int | None = None
    cause: str = ""
    by: Proposal | None = None  # None: the limits
    not_scaled: NotScaled | None = None


STAY = Decision()


def decide(target: ScalableTarget, state: TargetState, current: int, views: Views) -> Decision:
    limits = (target.min_capacity, target.max_capacity)
    held = held_to(current, *limits)
    if held != current:
        return Decision(held, _limit_cause(target, current, are_new=state.limits != limits))
    outs = [p for p in views.proposals if p.capacity > current]
    if outs:
        return STAY if target.suspended.scaling_out else _out(target, current, outs)
    if stays := [p for p in views.proposals if p.capacity == current]:
        return Decision(by=stays[0], not_scaled=NotScaled("AlreadyAtDesiredCapacity", current=current))
    ins = [p for p in views.proposals if not (p.is_tracking and views.vetoes)]
    return _in(target, current, ins) if ins and not target.suspended.scaling_in else STAY


def base(state: TargetState, current: int, cooldown_s: float, now: datetime) -> int:
    """The capacity that an adjustment starts from.

    What the last scaling out added counts towards the next one as long as its cool-down runs, so that a bigger need
    adds the difference only.
    """
    last = state.last_out
    if last is None or last.after != current or not is_cooling(last, cooldown_s, now):
        return current
    return last.before


def is_cooling(last: Change | None, cooldown_s: float, now: datetime) -> bool:
    return last is not None and now < last.at + timedelta(seconds=cooldown_s)


def blocks_scaling_in(
    state: TargetState, out_cooldown_s: float, in_cooldown_s: float, now: datetime
) -> datetime | None:
    """Until when a policy with these cool-downs must not take capacity away; None when it may."""
    ends = [
        last.at + timedelta(seconds=cooldown_s)
        for last, cooldown_s in ((state.last_out, out_cooldown_s), (state.last_in, in_cooldown_s))
        if last is not None and is_cooling(last, cooldown_s, now)
    ]
    return max(ends, default=None)


def _out(target: ScalableTarget, current: int, outs: Sequence[Proposal]) -> Decision:
    by = max(outs, key=lambda proposal: proposal.capacity)
    if current >= target.max_capacity:
        return Decision(by=by, not_scaled=NotScaled("AlreadyAtMaxCapacity", most=target.max_capacity))
    return Decision(min(by.capacity, target.max_capacity), by.cause, by)


def _in(target: ScalableTarget, current: int, ins: Sequence[Proposal]) -> Decision:
    by = max(ins, key=lambda proposal: proposal.capacity)
    if current <= target.min_capacity:
        return Decision(by=by, not_scaled=NotScaled("AlreadyAtMinCapacity", least=target.min_capacity))
    return Decision(max(by.capacity, target.min_capacity), by.cause, by)


def _limit_cause(target: ScalableTarget, current: int, *, are_new: bool) -> str:
    is_below = current < target.min_capacity
    word, limit = ("minimum", target.min_capacity) if is_below else ("maximum", target.max_capacity)
    if are_new:
        return f"{word} capacity was set to {limit}"
    side = "below" if is_below else "above"
    return f"the endpoint was updated to {current} instances, {side} the {word} capacity of {limit}"
