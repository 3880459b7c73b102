"""kill -9 of control at every store write of CreateEndpoint and DeleteEndpoint, found by counting, not by a list.

One server serves all the runs. For each, control is told to die at its n-th write from now (see `sabotage/`), just
before the commit or just after it, and the supervisor starts it again. The runs end with the first in which fewer
writes came than it was to die at.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import xgboost

from benchmarks.chaos.caller import Caller
from benchmarks.chaos.experiment import SABOTAGE_DIR, Broken, Conditions, hold, wait_until
from benchmarks.chaos.ledger import SignedConnection
from benchmarks.chaos.remains import instance_directories, instance_processes, minders
from benchmarks.platform import Platform, regressor

NAME = "enumerated"
INSTANCES = 2
MOST_WRITES = 200
CONVERGES_WITHIN_S = 20.0
TRAILING_S = 0.4
"""What control still writes once the caller has seen the end: the lease given back, a sweep."""


def create(conditions: Conditions) -> str:
    return _at_every_write(conditions, _Trial.creation)


def delete(conditions: Conditions) -> str:
    return _at_every_write(conditions, _Trial.deletion)


def _at_every_write(conditions: Conditions, trial: "Callable[[_Trial, Callable[[], None]], None]") -> str:
    crashes = 0
    with tempfile.TemporaryDirectory() as directory:
        armed = Path(directory) / "crash"
        with conditions.platform(CLARY_CRASH_FILE=str(armed), PYTHONPATH=str(SABOTAGE_DIR)) as platform:
            trials = _Trial(platform)
            for number in range(1, MOST_WRITES):
                for when in ("before", "after"):
                    try:
                        trial(trials, lambda at=f"{number} {when}": _arm(armed, at))  # type: ignore[misc]
                    except Broken as error:
                        raise Broken(f"killed {when} the commit of write {number}: {error}") from error
                    if armed.exists():
                        armed.unlink()
                        return (
                            f"{crashes} kills at {number - 1} writes, before and after each commit; every time "
                            f"converged, {trials.answers} right answers"
                        )
                    crashes += 1
    raise Broken(f"{MOST_WRITES} writes and no end")


def _arm(file: Path, at: str) -> None:
    whole = file.with_suffix(".whole")
    whole.write_text(at)
    whole.rename(file)


class _Trial:
    """An endpoint that is created or deleted while control dies on the way, and how the world must be afterwards."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._caller = Caller(platform, CONVERGES_WITHIN_S)
        booster, rows = regressor(trees=5, depth=3)
        self._row = ",".join(f"{value:.7g}" for value in rows[0])
        self._expected = float(booster.predict(xgboost.DMatrix(rows[:1]))[0])
        self.answers = 0
        platform.deploy(NAME, platform.upload(booster), instances=INSTANCES)
        self._is_whole()
        self._delete()
        self._is_gone()

    def creation(self, arm: Callable[[], None]) -> None:
        arm()
        self._create()
        self._is_whole()
        time.sleep(TRAILING_S)
        self._is_whole()
        self._delete()
        self._is_gone()

    def deletion(self, arm: Callable[[], None]) -> None:
        self._create()
        self._is_whole()
        time.sleep(TRAILING_S)
        arm()
        self._delete()
        self._is_gone()
        time.sleep(TRAILING_S)
        self._is_gone()

    def _create(self) -> None:
        self._caller.create(NAME, NAME)
        self._caller.wait(NAME, "InService")

    def _delete(self) -> None:
        self._caller.delete(NAME)
        self._caller.wait(NAME, "gone")

    def _is_whole(self) -> None:
        """InService, exactly the wanted instances, each of them alive, right answers."""
        self._caller.wait(NAME, "InService")
        with suppress(Broken):  # what is told then says more
            wait_until(self._has_one_fleet, "one fleet", 5.0)
        hold(self._has_one_fleet(), f"{self._count()} for {INSTANCES} wanted")
        connection = SignedConnection(self._platform)
        for _ in range(4):
            status, answer = connection.invoke(NAME, self._row)
            hold(
                status == 200 and abs(float(answer) - self._expected) < 1e-4, f"answered {status} {answer!r}"
            )
            self.answers += 1
        connection.close()

    def _is_gone(self) -> None:
        self._caller.wait(NAME, "gone")
        settings = self._platform.settings
        hold(not instance_directories(settings) and not instance_processes(settings), f"{self._count()} left")
        connection = SignedConnection(self._platform)
        status, answer = connection.invoke(NAME, self._row)
        connection.close()
        hold(status == 400 and b"not found" in answer, f"gone, but answered {status} {answer[:100]!r}")

    def _has_one_fleet(self) -> bool:
        settings = self._platform.settings
        found = {
            len(instance_directories(settings)),
            len(minders(settings)),
            len(instance_processes(settings)),
        }
        return found == {INSTANCES}

    def _count(self) -> str:
        settings = self._platform.settings
        return f"{len(instance_directories(settings))} directories and {len(minders(settings))} running instances"
