"""Alarms in the store: what is kept of them, for how long, and what a change writes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.domain.alarms import AlarmSpec, AlarmState
from clary.store import DuplicateName, StaleResource, Store, alarm_history
from clary.store.alarm_history import HistoryQuery
from clary.store.alarms import change_state, delete_alarm, find_alarm, put_alarm
from clary.testing.clock import FakeClock

ACCOUNT, REGION = "123456789012", "eu-central-1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}", clock, is_durable=False)
    yield store
    store.close()


def put(store: Store, clock: FakeClock, spec: AlarmSpec, uid: str = "a" * 32) -> None:
    with store.write() as tx:
        put_alarm(tx, uid, ACCOUNT, REGION, spec, clock.now())


def history(store: Store) -> list[alarm_history.HistoryItem]:
    with store.read() as tx:
        return tx.alarm_history.page(HistoryQuery(ACCOUNT, REGION, descending=False, limit=10_000))


def test_L03_history_is_kept_two_weeks_and_outlives_the_alarm(store: Store, clock: FakeClock) -> None:
    put(store, clock, AlarmSpec("a", threshold=5.0))
    clock.advance(10 * 86_400)
    with store.write() as tx:
        assert delete_alarm(tx, ACCOUNT, REGION, "a")
        assert not delete_alarm(tx, ACCOUNT, REGION, "a")
    assert [item.summary for item in history(store)] == ['Alarm "a" created', 'Alarm "a" deleted']
    assert json.loads(history(store)[0].data)["createdAlarm"]["threshold"] == 5.0
    clock.advance(5 * 86_400)
    assert [item.summary for item in history(store)] == ['Alarm "a" deleted']


def test_L03_old_history_of_an_alarm_that_is_gone_does_not_stay(store: Store, clock: FakeClock) -> None:
    put(store, clock, AlarmSpec("a"))
    clock.advance(10 * 86_400)
    with store.write() as tx:
        delete_alarm(tx, ACCOUNT, REGION, "a")
    clock.advance(5 * 86_400)
    with store.write() as tx:
        assert (tx.alarm_history.forget_old(), tx.alarm_history.forget_old()) == (1, 0)
    clock.advance(10 * 86_400)
    with store.write() as tx:
        assert tx.alarm_history.forget_old() == 1


def test_L03_an_alarm_that_flaps_cannot_fill_the_disk(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_history, "KEPT", 10)
    put(store, clock, AlarmSpec("a"))
    put(store, clock, AlarmSpec("b"), "b" * 32)
    for number in range(30):
        with store.write() as tx:
            alarm = find_alarm(tx, ACCOUNT, REGION, "a")
            assert alarm is not None
            change_state(tx, alarm, "OK" if number % 2 else "ALARM", "", "", clock.now(), [])
    kept = [item.alarm for item in history(store)]
    assert (kept.count("a"), kept.count("b")) == (10, 1)


def test_L03_names_keep_their_case(store: Store, clock: FakeClock) -> None:
    put(store, clock, AlarmSpec("Errors"))
    with store.read() as tx:
        assert find_alarm(tx, ACCOUNT, REGION, "errors") is None
    with pytest.raises(DuplicateName):
        put(store, clock, AlarmSpec("errors"), "b" * 32)


def test_L03_a_change_of_an_alarm_that_changed_meanwhile_is_not_written(
    store: Store, clock: FakeClock
) -> None:
    put(store, clock, AlarmSpec("a"))
    with store.read() as tx:
        read = find_alarm(tx, ACCOUNT, REGION, "a")
    assert read is not None
    put(store, clock, AlarmSpec("a", threshold=2.0))
    with pytest.raises(StaleResource), store.write() as tx:
        change_state(tx, read, "ALARM", "", "", clock.now(), [])
    assert [item.type for item in history(store)] == ["ConfigurationUpdate"] * 2


def test_L03_the_same_state_again_only_gets_its_reason(store: Store, clock: FakeClock) -> None:
    put(store, clock, AlarmSpec("a"))
    began = clock.now()
    clock.advance(60)
    with store.write() as tx:
        alarm = find_alarm(tx, ACCOUNT, REGION, "a")
        assert alarm is not None
        changed = change_state(tx, alarm, "INSUFFICIENT_DATA", "still", "", clock.now(), [], is_set=True)
    state = changed.state_as(AlarmState)
    assert (state.reason, state.transitioned_at, state.updated_at) == ("still", began, clock.now())
    assert [item.type for item in history(store)] == ["ConfigurationUpdate"]
