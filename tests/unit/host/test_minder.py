"""What a fork of the minder does when its first steps fail: it ends, and never goes on with its parent's work."""

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from clary.host import minder, minder_calls, minder_cpu, minder_forks, sandbox
from clary.host.launching import withdraw
from clary.links import instances as files


@contextmanager
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fork made in here ends in here, or by a signal that tells it came back as it must not."""
    parent = os.getpid()
    try:
        # As it is in a fork of the zygote, and not in a test.
        with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as error:
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", error)
            yield
    finally:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def end_of(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(("where", "what"), [(minder_cpu, "join"), (minder_calls, "prctl")])
def test_H08_an_instance_that_fails_at_once_never_goes_on_as_its_minder(
    where: ModuleType, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "this fails")

    monkeypatch.setattr(where, what, fail)
    minding, log = minder._Minding(), tmp_path / "log"
    with log.open("wb") as file, forks(monkeypatch):
        minding.begin({"sandbox": None}, file.fileno())
    assert end_of(minding.child) == 1
    assert "this fails" in log.read_text()


def test_H08_an_init_that_nobody_listens_to_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan: object) -> None:
        raise sandbox.SandboxFailed("this fails")

    monkeypatch.setattr(sandbox, "enclose", fail)
    heard, report = os.pipe()
    os.close(heard)
    with forks(monkeypatch):
        if (pid := os.fork()) == 0:
            minder_forks.run_init({"sandbox": {}}, -1, -1, report, -1)
    os.close(report)
    assert end_of(pid) == 0


@pytest.mark.parametrize("is_given_up", [True, False])
def test_H08_a_minder_that_stood_still_while_its_start_was_given_up_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_given_up: bool
) -> None:
    """It had the lock and knew that it may, but had not said who it is: so it was taken for one that never came."""
    files.write(tmp_path, files.LAUNCH, files.Launch("os:mkdir", {}, open_files=64))
    launch = json.loads((tmp_path / files.LAUNCH).read_bytes()) | {"config": str(tmp_path / "it ran")}
    (tmp_path / files.LAUNCH).write_text(json.dumps(launch))
    start_time = minder._start_time

    def stand_still() -> int:
        if is_given_up:
            assert withdraw(tmp_path) is None
        return start_time()

    monkeypatch.setattr(minder, "_start_time", stand_still)
    with (tmp_path / "log").open("wb") as file, forks(monkeypatch):
        if (pid := os.fork()) == 0:
            minder.run(str(tmp_path), file.fileno())
    assert end_of(pid) == int(is_given_up)
    assert (tmp_path / "it ran").exists() is not is_given_up
    assert (tmp_path / files.EXIT).exists() is not is_given_up
    assert files.minder_of(tmp_path) is not None
