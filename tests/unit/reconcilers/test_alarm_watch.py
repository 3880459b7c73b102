"""The watch over all alarms: data in, states, history and actions out; whatever is killed on the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.domain.alarm_evaluation import Timing
from clary.domain.alarms import AlarmSpec, AlarmState, StateChange
from clary.links.metrics import MetricPoint
from clary.reconcilers.alarm import AlarmWatch
from clary.store import Resource, Store, Transaction
from clary.store.alarm_history import HistoryQuery
from clary.store.alarms import change_state, delete_alarm, find_alarm, put_alarm
from clary.telemetry.sketches import bucket
from clary.telemetry.store import MetricStore
from clary.testing.clock import FakeClock

ACCOUNT, REGION = "123456789012", "eu-central-1"
DIMENSIONS = (("EndpointName", "e"), ("VariantName", "v"))
ERRORS = AlarmSpec(
    "errors",
    namespace="AWS/SageMaker",
    metric="Invocation5XXErrors",
    dimensions=DIMENSIONS,
    statistic="Sum",
    threshold=1.0,
    comparison="GreaterThanOrEqualToThreshold",
    missing_data="notBreaching",
    alarm_actions=("tell:it",),
    ok_actions=("tell:it",),
)


class Told:
    """An action that notes in a row how often it was fired."""

    def __init__(self, prefix: str = "tell:", *, repeats: bool = False) -> None:
        self.repeats = repeats
        self.changes: list[StateChange] = []
        self.broken = ""
        self._prefix = prefix

    def takes(self, arn: str) -> bool:
        return arn.startswith(self._prefix)

    def fire(
        self, tx: Transaction, alarm: Resource, spec: AlarmSpec, arn: str, change: StateChange
    ) -> str | None:
        if alarm.name == self.broken:
            raise RuntimeError("this action fails")
        tx.events.add(alarm.uid, "fired", arn=arn, new=change.new)
        self.changes.append(change)
        return None


class World:
    def __init__(self, directory: Path, timing: Timing = "fast") -> None:
        self.clock = FakeClock()
        self.clock.advance(2.0)
        self.store = Store.open(f"sqlite:///{directory / 'store.db'}", self.clock, is_durable=False)
        self.metrics = MetricStore(directory / "metrics.db", self.clock)
        self.told = Told()
        self.again = Told("again:", repeats=True)
        self.timing: Timing = timing
        self.restart()
        self._count = 0

    def restart(self) -> None:
        """As after a kill: nothing in memory is left."""
        self.watch = AlarmWatch(self.store, self.metrics, self.clock, [self.told, self.again], self.timing)

    def put(self, spec: AlarmSpec) -> None:
        self._count += 1
        with self.store.write() as tx:
            put_alarm(tx, f"{self._count:032x}", ACCOUNT, REGION, spec, self.clock.now())

    def set(self, name: str, status: Any) -> None:
        with self.store.write() as tx:
            alarm = find_alarm(tx, ACCOUNT, REGION, name)
            assert alarm is not None
            change_state(tx, alarm, status, "by hand", "", self.clock.now(), [self.told], is_set=True)

    def observe(self, *values: float, metric: str = "Invocation5XXErrors", unit: str = "None") -> None:
        window = int(self.clock.now().timestamp()) // 5 * 5
        self.metrics.put(
            [
                MetricPoint(
                    *(
                        ACCOUNT,
                        REGION,
                        "AWS/SageMaker",
                        metric,
                        DIMENSIONS,
                        unit,
                        window,
                        1,
                        value,
                        value,
                        value,
                    ),
                    {bucket(value): 1},
                )
                for value in values
            ]
        )

    def alarm(self, name: str) -> Resource:
        with self.store.read() as tx:
            found = find_alarm(tx, ACCOUNT, REGION, name)
        assert found is not None
        return found

    def status(self, name: str = "errors") -> str:
        return self.alarm(name).status

    def history(self, **query: Any) -> list[str]:
        with self.store.read() as tx:
            types = ("MetricAlarm", "CompositeAlarm")
            page = tx.alarm_history.page(
                HistoryQuery(ACCOUNT, REGION, alarm_types=types, descending=False, **query)
            )
        return [item.summary for item in page]

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(int(seconds / step_s)):
            self.clock.advance(step_s)
            self.watch.look()

    def close(self) -> None:
        self.metrics.close()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_L03_an_error_raises_the_alarm_as_soon_as_it_is_known_and_time_ends_it(world: World) -> None:
    world.put(ERRORS)
    world.watch.look()
    assert world.status() == "OK"  # nothing there, which is not breaching
    world.observe(0.0, 0.0)
    world.run(5)
    world.observe(1.0)
    world.run(2)
    assert world.status() == "ALARM"
    state = world.alarm("errors").state_as(AlarmState)
    assert "was greater than or equal to the threshold (1.0)" in state.reason
    world.run(240)
    assert world.status() == "OK"
    assert [(change.old, change.new) for change in world.told.changes] == [
        ("INSUFFICIENT_DATA", "OK"),
        ("OK", "ALARM"),
        ("ALARM", "OK"),
    ]
    assert world.history(type="StateUpdate") == [
        "Alarm updated from INSUFFICIENT_DATA to OK",
        "Alarm updated from OK to ALARM",
        "Alarm updated from ALARM to OK",
    ]


def test_L03_a_set_state_lasts_one_evaluation_and_then_the_data_decide(world: World) -> None:
    world.put(ERRORS)
    world.watch.look()
    world.set("errors", "ALARM")
    for _ in range(9):
        world.observe(0.0)
        world.run(1)
        assert world.status() == "ALARM"
    world.run(3)
    assert world.status() == "OK"


def test_L03_data_in_a_window_that_still_fills_are_seen_when_it_is_complete(world: World) -> None:
    """Nothing else ever comes: what was not to be believed yet must not be forgotten."""
    world.put(replace(ERRORS, name="low", comparison="LessThanThreshold", threshold=5.0, period_s=10))
    world.run(30)
    world.observe(1.0)
    world.run(25)
    assert "ALARM" in "".join(world.history(alarm="low"))


def test_L03_a_percentile_of_the_alarms_unit_is_looked_at(world: World) -> None:
    latency = AlarmSpec(
        "slow",
        namespace="AWS/SageMaker",
        metric="ModelLatency",
        dimensions=DIMENSIONS,
        unit="Microseconds",
        statistic="p90",
        period_s=10,
        threshold=1000,
    )
    world.put(latency)
    world.observe(*[10.0] * 80, metric="ModelLatency", unit="Microseconds")
    world.observe(*[5000.0] * 50, metric="ModelLatency", unit="Seconds")
    world.run(12)
    assert world.status("slow") == "OK"
    world.observe(*[5000.0] * 20, metric="ModelLatency", unit="Microseconds")
    world.run(10)
    assert world.status("slow") == "ALARM"


def test_L03_in_awss_timing_only_whole_minutes_count(tmp_path: Path) -> None:
    world = World(tmp_path, "aws")
    world.put(ERRORS)
    world.run(30)
    world.observe(5.0)
    world.run(28)
    assert world.status() == "OK"
    world.run(12)
    assert world.status() == "ALARM"
    world.close()


def test_L03_composite_alarms_follow_their_children_at_once(world: World) -> None:
    world.put(ERRORS)
    world.put(AlarmSpec("both", rule='ALARM("errors") AND NOT ALARM("muted")', alarm_actions=("tell:x",)))
    world.put(AlarmSpec("outer", rule='ALARM("both")'))
    world.watch.look()
    assert (world.status("both"), world.status("outer")) == ("OK", "OK")
    world.observe(9.0)
    world.clock.advance(3)
    world.watch.look()
    assert (world.status("both"), world.status("outer")) == ("ALARM", "ALARM")
    reason = world.alarm("both").state_as(AlarmState).reason
    assert reason.startswith(f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:errors transitioned to ALARM at ")


def test_K01_actions_that_repeat_are_fired_as_long_as_the_state_lasts(world: World) -> None:
    world.put(AlarmSpec("busy", metric="m", missing_data="breaching", alarm_actions=("again:x", "tell:x")))
    world.run(31)
    assert world.status("busy") == "ALARM"
    assert len(world.told.changes) == 1
    assert 5 <= len(world.again.changes) <= 8
    with world.store.write() as tx:
        delete_alarm(tx, ACCOUNT, REGION, "busy")
    before = len(world.again.changes)
    world.run(20)
    assert len(world.again.changes) == before


def test_L03_disabled_actions_stay_away(world: World) -> None:
    world.put(AlarmSpec("off", missing_data="breaching", alarm_actions=("tell:x",), actions_enabled=False))
    world.run(2)
    assert world.status("off") == "ALARM"
    assert not world.told.changes


def test_L03_one_action_that_fails_takes_nobody_along(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        world.put(AlarmSpec(f"a{number}", missing_data="breaching", alarm_actions=("tell:x",)))
    world.told.broken = "a2"
    world.run(2)
    found = [world.status(f"a{number}") for number in range(5)]
    assert found == ["ALARM", "ALARM", "INSUFFICIENT_DATA", "ALARM", "ALARM"]
    assert "an alarm's change was not written" in caplog.text
    world.told.broken = ""
    world.run(12)
    assert world.status("a2") == "ALARM"


def test_L03_a_kill_before_or_after_a_change_loses_and_doubles_no_action(world: World) -> None:
    world.put(ERRORS)
    world.watch.look()
    world.observe(3.0)
    world.clock.advance(3)
    world.restart()  # killed before it looked
    world.watch.look()
    world.restart()  # killed after it wrote
    world.watch.look()
    with world.store.read() as tx:
        fired = [event.detail["new"] for event in tx.events.of(world.alarm("errors").uid)]
    assert fired == ["OK", "ALARM"]


def test_L03_two_controls_that_see_the_same_change_write_it_once(world: World) -> None:
    world.put(ERRORS)
    other = AlarmWatch(world.store, world.metrics, world.clock, [world.told], "fast")
    world.observe(3.0)
    world.clock.advance(3)
    other._read(world.clock.now())
    world.watch.look()
    other._apply(other._metric_changes(world.clock.now()), world.clock.now())
    assert len(world.told.changes) == 1


def test_L03_an_alarm_that_is_written_anew_keeps_its_state_and_goes_by_its_new_threshold(
    world: World,
) -> None:
    world.put(ERRORS)
    world.observe(3.0)
    world.run(3)
    assert world.status() == "ALARM"
    world.put(AlarmSpec("errors", **{**_members(ERRORS), "threshold": 10.0}))
    assert world.status() == "ALARM"
    world.run(3)
    assert world.status() == "OK"


def test_L03_idle_alarms_are_not_evaluated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        world.put(AlarmSpec(f"idle{number}", metric=f"m{number}", missing_data="notBreaching"))
    world.run(3)
    queries = 0
    query = MetricStore.query

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal queries
        queries += 1
        return query(*args, **kwargs)

    monkeypatch.setattr(MetricStore, "query", counted)
    world.run(60)
    assert queries == 0


def _members(spec: AlarmSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__ if name != "name"}


def test_L03_alarms_that_could_not_be_read_are_read_at_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(2)
    world.put(ERRORS)
    world.observe(3.0)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "read", _fails)
        with pytest.raises(RuntimeError):
            world.watch.look()
    world.run(7)
    assert world.status() == "ALARM"


def _fails() -> object:
    raise RuntimeError("the disk hiccups")
