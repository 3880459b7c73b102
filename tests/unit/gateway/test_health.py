"""A target whose connections keep failing is passed over for a growing time, never the last one."""

from collections.abc import Callable
from datetime import UTC, datetime

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.health import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_FAILURES, Trouble
from clary.gateway.plans import TargetState, VariantPlan
from clary.gateway.routes import RouteTable
from clary.telemetry.metrics import Recorder

KEY = EndpointKey("1", "r", "ep")


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def test_H10_only_failures_in_a_row_at_different_moments_count() -> None:
    trouble = Trouble()
    assert not any(trouble.failed(0.0, 1.0) for _ in range(32))  # one connection that carried 32 requests
    assert [trouble.failed(0.0, 1.0 + number) for number in range(1, MOST_FAILURES)] == [False, True]


def test_H10_the_pause_doubles_up_to_its_limit() -> None:
    trouble = Trouble()
    pauses = [trouble.pass_over(float(number)) for number in range(8)]
    assert pauses[:4] == [FIRST_PAUSE_S, 2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_H10_requests_of_before_tell_nothing_new() -> None:
    trouble = Trouble()
    trouble.pass_over(10.0)
    trouble.stage = "trying"
    assert not trouble.failed(sent=9.0, now=20.0)
    assert trouble.failed(sent=11.0, now=20.0)


class Clockwork:
    """A table whose loop's time and timers a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []
        self.recorder = Recorder("test", Noon())
        self.table = RouteTable(self.recorder, self)  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, work: Callable[..., None], *arguments: object) -> None:
        self.timers.append((self.now + delay, work, arguments))

    def turn(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, work, arguments in due:
            work(*arguments)

    def publish(self, *instances: str, generation: int = 1) -> VariantPlan:
        targets = tuple(Target(InstanceId(name), f"unix:/none/{name}") for name in instances)
        self.table.change(
            generation, [EndpointRoute(KEY, "ep", "u", generation, (VariantRoute("All", 1.0, targets),))], []
        )
        plan = self.table.find(KEY)
        assert plan is not None
        return plan.variants["All"].plans[0]

    def fail(self, target: TargetState, times: int = MOST_FAILURES) -> None:
        for _ in range(times):
            self.now += 0.01
            if target.trouble is not None:
                target.sent()
            target.failed(self.now)

    def counted(self) -> float:
        batch = self.recorder.drain()
        return sum(p.sum for p in batch.points if p.name == "InstancesPassedOver") if batch else 0.0


def names(plan: VariantPlan) -> list[str]:
    return sorted(target.instance_id for target in plan.taking)


def test_H10_a_failing_target_is_passed_over_then_tried_by_one_request() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b", "c")
    a = plan.targets[0]
    clock.fail(a, MOST_FAILURES - 1)
    assert names(plan) == ["a", "b", "c"]
    clock.fail(a, 1)
    assert names(plan) == ["b", "c"]
    assert clock.counted() == 1
    clock.turn(FIRST_PAUSE_S)
    assert names(plan) == ["a", "b", "c"]  # on trial
    a.sent()
    assert names(plan) == ["b", "c"]  # the one request decides
    a.failed(clock.now)
    assert a.trouble is not None
    assert a.trouble.pause_s == 2 * FIRST_PAUSE_S
    clock.turn(FIRST_PAUSE_S)
    assert names(plan) == ["b", "c"]
    clock.turn(FIRST_PAUSE_S)
    a.sent()
    a.answered()
    assert names(plan) == ["a", "b", "c"]
    assert a.trouble is None


def test_H10_an_answer_between_failures_forgives_them() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b")
    a = plan.targets[0]
    for _ in range(3):
        clock.fail(a, MOST_FAILURES - 1)
        a.answered()
    assert names(plan) == ["a", "b"]


def test_H10_the_last_target_is_never_passed_over() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b")
    for target in plan.targets:
        clock.fail(target, 2 * MOST_FAILURES)
    assert names(plan) == ["b"]
    clock.turn(FIRST_PAUSE_S)
    a = plan.targets[0]
    a.sent()
    a.answered()
    clock.fail(plan.targets[1], 1)
    assert names(plan) == ["a"]


def test_H10_at_least_half_of_a_fleet_stays_in_rotation() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b", "c", "d", "e")
    for target in plan.targets:  # all are too slow
        clock.fail(target)
    assert names(plan) == ["c", "d", "e"]
    assert names(clock.publish("a", "b", "c", generation=2)) == ["a", "b", "c"]


def test_H10_the_last_one_may_be_on_trial_and_still_serves() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b")
    clock.fail(plan.targets[0])
    only = clock.publish("a", generation=2)
    assert names(only) == ["a"]
    clock.turn(FIRST_PAUSE_S)
    only.targets[0].sent()
    assert names(only) == ["a"]
    more = clock.publish("a", "d", generation=3)
    assert names(more) == ["a", "d"]


def test_H10_a_change_of_the_route_keeps_what_is_known() -> None:
    clock = Clockwork()
    clock.fail(clock.publish("a", "b", "c").targets[0])
    plan = clock.publish("a", "b", generation=2)
    assert names(plan) == ["b"]
    clock.turn(FIRST_PAUSE_S)
    assert names(plan) == ["a", "b"]


def test_H10_a_target_that_has_left_the_route_is_nobody_s_trouble() -> None:
    clock = Clockwork()
    plan = clock.publish("a", "b", "c")
    a = plan.targets[0]
    clock.publish("b", "c", generation=2)
    clock.fail(a, 5)
    clock.turn(60)
    assert names(clock.publish("b", "c", generation=3)) == ["b", "c"]
