"""The loop around reconcilers: it wakes for wishes and changes, keeps keys apart, and stops cleanly."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clary.drivers.fake import FakeDriver
from clary.reconcilers.base import Runner
from clary.store import Lease, Store
from control.harness import Control

LONG_S = 60.0


class Recorder:
    """A reconciler that does what it is told and says when it was asked."""

    kind = "thing"
    settled: frozenset[str] = frozenset()

    def __init__(self, act: Callable[[str], float | None]) -> None:
        self._act = act

    def reconcile(self, lease: Lease) -> float | None:
        return self._act(lease.uid)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path, driver=FakeDriver())
    yield control
    control.close()


def wish(store: Store, *uids: str) -> None:
    with store.write() as tx:
        for uid in uids:
            tx.work.wish("thing", uid)


def running(control: Control, act: Callable[[str], float | None], workers: int = 8) -> Runner:
    runner = Runner(control.store, control.driver, control.clock, [Recorder(act)], workers)
    runner.start()
    return runner


def test_a_wish_is_heard_at_once(control: Control) -> None:
    heard = threading.Event()
    runner = running(control, lambda uid: heard.set())
    wish(control.store, "a")
    assert heard.wait(LONG_S)
    runner.stop()


def test_a_slow_key_holds_up_no_other(control: Control) -> None:
    release, others = threading.Event(), threading.Barrier(5)

    def act(uid: str) -> None:
        if uid == "slow":
            release.wait(LONG_S)
        else:
            others.wait(LONG_S)

    runner = running(control, act)
    wish(control.store, "slow")
    wish(control.store, "a", "b", "c", "d")
    others.wait(LONG_S)  # all four are at work while the slow one still is
    release.set()
    runner.stop()


def test_one_key_is_never_worked_on_twice_at_once(control: Control) -> None:
    working, done = threading.Lock(), threading.Semaphore(0)
    overlaps: list[str] = []
    wishes = iter(range(10))

    def act(uid: str) -> None:
        if not working.acquire(blocking=False):
            overlaps.append(uid)
            return
        if next(wishes, None) is not None:
            wish(control.store, uid)  # due again while it is still worked on
        working.release()
        done.release()

    runner = running(control, act)
    wish(control.store, "a")
    for _ in range(11):
        assert done.acquire(timeout=LONG_S)
    runner.stop()
    assert overlaps == []


def test_pausing_waits_for_what_is_under_way(control: Control) -> None:
    entered, release, ended = threading.Event(), threading.Event(), threading.Event()
    after = threading.Event()

    def act(uid: str) -> None:
        if uid == "later":
            after.set()
            return
        entered.set()
        release.wait(LONG_S)
        ended.set()

    runner = running(control, act)
    wish(control.store, "a")
    assert entered.wait(LONG_S)
    threading.Timer(0.05, release.set).start()
    with runner.paused():
        assert ended.is_set()
        wish(control.store, "later")
        assert not after.is_set()
    assert after.wait(LONG_S)
    runner.stop()


def test_stopping_finishes_what_is_under_way(control: Control) -> None:
    entered, ended = threading.Event(), threading.Event()

    def act(uid: str) -> None:
        entered.set()
        ended.wait(0.05)
        ended.set()

    runner = running(control, act)
    wish(control.store, "a")
    assert entered.wait(LONG_S)
    runner.stop()
    assert ended.is_set()
    with control.store.read() as tx:
        assert tx.work.next_due() is None


def test_a_change_at_the_driver_wakes_its_endpoint(control: Control) -> None:
    control.model()
    control.config()
    routed = threading.Event()
    published = control.routing.publish

    def publish(route: object) -> None:
        published(route)  # type: ignore[arg-type]
        routed.set()

    control.routing.publish = publish  # type: ignore[method-assign]
    control.runner.start()
    control.endpoint()
    assert routed.wait(LONG_S)
    (first,) = control.routing.targets("e")
    routed.clear()
    control.driver.end(first)
    while first in control.routing.targets("e") or not control.routing.targets("e"):
        assert routed.wait(LONG_S)
        routed.clear()
    control.runner.stop()
    assert set(control.routing.targets("e")) == set(control.held)
