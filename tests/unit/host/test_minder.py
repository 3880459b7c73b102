"""What a fork of the minder does when its first steps fail: it ends, and never goes on with its parent's work."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clary.host import minder, sandbox


@contextmanager
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fork made in here ends in here, or by a signal that tells it came back as it must not."""
    parent = os.getpid()
    try:
        with open(2, "w", closefd=False) as out:  # as it is in a fork of the zygote, and not in a test
            monkeypatch.setattr(sys, "stderr", out)
            yield
    finally:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def end_of(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("what", ["_join_cpu_group", "_prctl"])
def test_H08_an_instance_that_fails_at_once_never_goes_on_as_its_minder(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "this fails")

    monkeypatch.setattr(minder, what, fail)
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
            minder._run_init({"sandbox": {}}, -1, -1, report, -1)
    os.close(report)
    assert end_of(pid) == 0
