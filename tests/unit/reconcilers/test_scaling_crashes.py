"""Control is killed after every commit and every call of the reconciler of scalable targets, and started again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from clary.store import Store, Transaction
from control.scaling_world import ScalingWorld

MOST_POINTS = 60


class Crash(BaseException):
    """The process is gone: nobody catches this."""


class CrashAt:
    """Wraps the store and the caller; the crash comes after the `at`-th commit or call took effect."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def __call__(self, thing: Any) -> Any:
        return _CrashingStore(thing, self) if isinstance(thing, Store) else self._crashing(thing)

    def passed(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash

    def _crashing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def crashing(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            self.passed()
            return result

        return crashing


class _CrashingStore:
    def __init__(self, store: Store, point: CrashAt) -> None:
        self._store, self._point = store, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator[Transaction]:
        with self._store.write(on_full_disk=on_full_disk) as tx:
            yield tx
        self._point.passed()


def story(world: ScalingWorld) -> None:
    """New limits by schedule, then a burst."""
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=8)
    world.scaling_call(
        "PutScheduledAction",
        ScheduledActionName="up",
        Schedule=(world.clock.now() + timedelta(seconds=4)).strftime("at(%Y-%m-%dT%H:%M:%S)"),
        ScalableTargetAction={"MinCapacity": 2},
    )
    world.track(3000.0)


def test_K01_K04_a_control_that_is_killed_at_any_step_carries_on(tmp_path: Path) -> None:
    for at in range(1, MOST_POINTS):
        directory = tmp_path / str(at)
        directory.mkdir()
        if not has_crashed(directory, at):
            assert at > 8, "there were commits and calls to be killed after"
            return
    raise AssertionError("the story never ended")


def has_crashed(directory: Path, at: int) -> bool:
    world = ScalingWorld(directory).restarted(CrashAt(at))
    story(world)
    has_crashed = False
    for second in range(32):
        try:
            world.tick(requests=10.0 if second < 6 else 240.0)
        except Crash:
            has_crashed = True
            world = world.restarted()
    assert world.count == 5, "240 requests a second, 50 for each instance"
    told = [(each["Description"], each["StatusCode"]) for each in world.activities()]
    assert all(status == "Successful" for _, status in told), told
    assert told[-2:] == [
        ("Setting desired instance count to 2.", "Successful"),
        ("Setting min capacity to 2", "Successful"),
    ]
    descriptions = [description for description, _ in told]
    assert len(set(descriptions)) == len(descriptions), "nothing was done twice"
    world.close()
    return has_crashed
