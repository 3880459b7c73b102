"""Which processes run, by pid files and the kernel's word."""

import fcntl
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.links import processes
from clary.links.processes import ProcessIdentity

HIGHEST_OF_SELECT = 1024


@pytest.fixture
def sleeper() -> Iterator[ProcessIdentity]:
    with subprocess.Popen(["sleep", "600"]) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        yield identity
        process.kill()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Every descriptor that `select` could watch is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HIGHEST_OF_SELECT + 100:
        pytest.skip("this machine allows no descriptor beyond those of select")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGHEST_OF_SELECT + 100), hard))
    null = os.open("/dev/null", os.O_RDONLY)
    taken = [null]
    while taken[-1] < HIGHEST_OF_SELECT:
        taken.append(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, 3))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_waiting_for_a_process_works_with_many_open_files(sleeper: ProcessIdentity, many_files: None) -> None:
    assert processes.wait_gone([sleeper], 0.01) == [sleeper]
    processes.signal(sleeper, signal.SIGKILL)
    assert processes.wait_gone([sleeper], 60.0) == []


def test_which_signals_a_process_heeds(sleeper: ProcessIdentity) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert processes.heeds(processes.current(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not processes.heeds(sleeper, signal.SIGUSR1)
    assert not processes.heeds(ProcessIdentity(1 << 30, 0), signal.SIGUSR1)


def test_a_pid_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.pid.json"
    before = processes.record(path)
    monkeypatch.setattr(Path, "rename", _refuse)
    with pytest.raises(OSError, match="No space left"):
        processes.record(path, ProcessIdentity(1, 1))
    assert processes.alive(path) == before
    assert list(tmp_path.iterdir()) == [path]


def _refuse(self: Path, target: Path) -> Path:
    raise OSError(28, os.strerror(28))
