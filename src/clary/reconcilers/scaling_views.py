"""What each scaling policy of a target says now: its alarms' states, turned into proposals of a capacity.

An alarm says that there is too much to do or too little; how many instances are right then is read from the metric
itself, at this moment, so that it does not matter how long ago the alarm's state changed, or who changed it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from clary.domain.alarms import AlarmSpec
from clary.domain.scaling import (
    LOW_PERIODS,
    PolicyState,
    ScalingPolicy,
    Stepping,
    TargetState,
    Timing,
    Tracking,
    tracking_alarms,
)
from clary.domain.scaling_arithmetic import (
    needed_at_most,
    needed_now,
    needed_soon,
    scaled_in,
    stepped,
    tracked,
)
from clary.domain.scaling_decisions import Proposal, Views, base, blocks_scaling_in
from clary.reconcilers.scaling_readings import Readings
from clary.store import Resource

_QUIET_FOR = timedelta(minutes=LOW_PERIODS)


@dataclass(frozen=True, slots=True)
class Policy:
    resource: Resource
    spec: ScalingPolicy
    state: PolicyState


@dataclass(frozen=True, slots=True)
class Scene:
    """All that proposals are made from. `alarms`: by exact name. `knows_quiet_since`: when this server began to be
    able to tell no requests from no news of them."""

    state: TargetState
    current: int
    policies: Sequence[Policy]
    alarms: Mapping[str, Resource]
    now: datetime
    knows_quiet_since: datetime


@dataclass(frozen=True, slots=True)
class Sight:
    """`is_pressed`: an alarm is on that may move the capacity soon. `look_at`: when a cool-down ends."""

    views: Views
    is_pressed: bool = False
    look_at: datetime | None = None


class Viewer:
    def __init__(self, readings: Readings, timing: Timing) -> None:
        self._readings = readings
        self._timing: Timing = timing

    def see(self, scene: Scene) -> Sight:
        sights = [
            self._tracking(scene, policy, policy.spec.tracking)
            if policy.spec.tracking is not None
            else self._stepping(scene, policy, policy.spec.stepping)
            for policy in scene.policies
        ]
        return Sight(
            Views(
                tuple(proposal for sight in sights for proposal in sight.views.proposals),
                any(sight.views.vetoes for sight in sights),
            ),
            any(sight.is_pressed for sight in sights),
            min((sight.look_at for sight in sights if sight.look_at is not None), default=None),
        )

    def _tracking(self, scene: Scene, policy: Policy, tracking: Tracking) -> Sight:
        veto = Sight(Views(vetoes=tracking.scales_in))
        proposal = Proposal(policy.spec.name, "", "ALARM", scene.current, scene.current, is_tracking=True)
        if _is_on(scene, tracking.high_alarm):
            above = self._needed_above(scene, policy, tracking)
            if above is None:
                return replace(veto, is_pressed=True)
            needed, start = above
            capacity = max(scene.current, needed)
            proposal = replace(proposal, alarm=tracking.high_alarm, capacity=capacity, base=start)
            return Sight(Views((proposal,), vetoes=tracking.scales_in), is_pressed=True)
        if not (tracking.scales_in and _is_on(scene, tracking.low_alarm)):
            return veto
        until = blocks_scaling_in(scene.state, tracking.out_cooldown_s, tracking.in_cooldown_s, scene.now)
        if until is not None:
            return replace(veto, look_at=until)
        below = self._needed_below(scene, policy, tracking)
        if below is None:
            return veto
        capacity = min(scene.current, scaled_in(scene.current, below))
        return Sight(
            Views((replace(proposal, alarm=tracking.low_alarm, capacity=capacity),)),
            is_pressed=capacity < scene.current,
        )

    def _needed_above(self, scene: Scene, policy: Policy, tracking: Tracking) -> tuple[int, int] | None:
        """How many instances there should be, and from how many that was reckoned."""
        account, region, now = policy.resource.account, policy.resource.region, scene.now
        if tracking.is_counted:
            counts = self._readings.counts(account, region, tracking, now)
            if self._timing == "aws":
                return needed_now(counts, tracking.target), scene.current
            return needed_soon(counts, tracking.target, scene.current), scene.current
        high, _ = tracking_alarms(tracking, policy.resource.arn, self._timing)
        found = self._readings.newest(account, region, tracking, high.period_s, now)
        if found is None:
            return None
        value, began = found
        start = self._base(scene, tracking, began)
        return tracked(start, value, tracking.target), start

    def _base(self, scene: Scene, tracking: Tracking, began: float) -> int:
        """The capacity that a value was measured under, as far as it is known."""
        last = scene.state.last_out
        if last is not None and last.after == scene.current and last.at.timestamp() > began:
            return last.before
        return base(scene.state, scene.current, tracking.out_cooldown_s, scene.now)

    def _needed_below(self, scene: Scene, policy: Policy, tracking: Tracking) -> int | None:
        """By the busiest minute of the quarter of an hour; None where nothing is known."""
        account, region, now = policy.resource.account, policy.resource.region, scene.now
        if tracking.is_counted:
            counts = self._readings.counts(account, region, tracking, now)
            if all(each is None for each in counts.minutes) and not self._is_quiet(scene, policy):
                return None
            return needed_at_most(counts, tracking.target)
        changes = [each.at for each in (scene.state.last_out, scene.state.last_in) if each is not None]
        changed_at = max(changes).timestamp() if changes else 0.0
        values = [
            v for v, began in self._readings.of_late(account, region, tracking, now) if began >= changed_at
        ]
        return tracked(scene.current, max(values), tracking.target) if values else None

    def _is_quiet(self, scene: Scene, policy: Policy) -> bool:
        """Whether no values mean no requests: everybody could have reported for a quarter of an hour."""
        if self._timing == "aws":
            return False
        since = max(scene.knows_quiet_since, policy.resource.created_at)
        return scene.now - since >= _QUIET_FOR

    def _stepping(self, scene: Scene, policy: Policy, stepping: Stepping | None) -> Sight:
        if stepping is None:  # written by another version of this server
            return Sight(Views())
        sights = [
            self._step(scene, policy, stepping, alarm, alarm.spec_as(AlarmSpec))
            for alarm in _triggering(scene, policy)
        ]
        return Sight(
            Views(tuple(proposal for sight in sights for proposal in sight.views.proposals)),
            is_pressed=bool(sights),
            look_at=min((sight.look_at for sight in sights if sight.look_at is not None), default=None),
        )

    def _step(
        self, scene: Scene, policy: Policy, stepping: Stepping, alarm: Resource, spec: AlarmSpec
    ) -> Sight:
        values = self._readings.of_alarm(alarm.account, alarm.region, spec, scene.now)
        # Set by hand, or by data that is missing: as far from the threshold as nothing.
        distance = _aggregate(stepping, values) - spec.threshold if values else 0.0
        start = base(scene.state, scene.current, stepping.cooldown_s, scene.now)
        capacity = stepped(stepping, start, distance)
        if capacity is None:
            return Sight(Views())
        proposal = Proposal(policy.spec.name, alarm.name, alarm.status, capacity, start)
        if capacity > start or capacity > scene.current:
            is_news = capacity > scene.current or start == scene.current
            return Sight(
                Views((replace(proposal, capacity=max(capacity, scene.current)),) if is_news else ())
            )
        capacity = stepped(stepping, scene.current, distance)
        if capacity is None or capacity >= scene.current:
            return Sight(Views())
        until = blocks_scaling_in(scene.state, stepping.cooldown_s, stepping.cooldown_s, scene.now)
        if until is not None:
            return Sight(Views(), look_at=until)
        return Sight(Views((replace(proposal, capacity=capacity, base=scene.current),)))


def _is_on(scene: Scene, name: str) -> bool:
    alarm = scene.alarms.get(name)
    return alarm is not None and alarm.status == "ALARM" and alarm.spec_as(AlarmSpec).actions_enabled


def _triggering(scene: Scene, policy: Policy) -> Iterator[Resource]:
    """The alarms that set the policy off and are still in the state in which they do."""
    for name, status in sorted(policy.state.triggers.items()):
        alarm = scene.alarms.get(name)
        if alarm is None or alarm.status != status:
            continue
        if policy.resource.arn in alarm.spec_as(AlarmSpec).actions(status):  # type: ignore[arg-type]
            yield alarm


def _aggregate(stepping: Stepping, values: Sequence[float]) -> float:
    match stepping.aggregation:
        case "Minimum":
            return min(values)
        case "Maximum":
            return max(values)
        case "Average":
            return sum(values) / len(values)
