"""Zygotes: one a framework, kept while used, replaced when it dies, and a bad import is told, not hidden."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clary.catalog import Catalog, Manifest
from clary.host.environments import Environment
from clary.host.failures import Refused
from clary.host.zygotes import Zygotes, _Gone, _receive, needs_fresh_start
from clary.links import instances as files
from clary.links.processes import ProcessIdentity, wait_gone
from clary.testing.clock import FakeClock

FRAMEWORKS = Path(__file__).parents[2] / "hosting" / "frameworks"
ENVIRONMENT = Environment("toy", "key", Path(sys.executable))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def zygotes(clock: FakeClock) -> Iterator[Zygotes]:
    zygotes = Zygotes(clock, idle_s=900, max_idle=1)
    yield zygotes
    zygotes.close()


@pytest.fixture
def manifest() -> Manifest:
    manifest = Catalog.load(FRAMEWORKS).named("toy")
    assert manifest is not None
    return manifest


def ended(directory: Path, zygotes: Zygotes, manifest: Manifest) -> files.Exit:
    """Runs an instance that exits with code 3 in the directory, to its end."""
    directory.mkdir()
    launch = {"entry": manifest.entry, "environment": {"TOY_DO": "exit:3"}, "config": {}, "open_files": 256}
    (directory / files.LAUNCH).write_text(json.dumps(launch))
    descriptor = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        zygotes.fork(ENVIRONMENT, manifest, {}, directory, descriptor)
    finally:
        os.close(descriptor)
    _wait_for_minder(directory)
    found = files.read(directory, files.EXIT, files.Exit)
    assert found is not None
    return found


def test_an_instance_runs_and_its_end_is_written_down(
    tmp_path: Path, zygotes: Zygotes, manifest: Manifest
) -> None:
    assert ended(tmp_path / "1", zygotes, manifest).exit_code == 3
    assert "about to end" in (tmp_path / "1/log").read_text()
    assert zygotes.names() == ("toy",)


def test_a_zygote_that_died_is_replaced(tmp_path: Path, zygotes: Zygotes, manifest: Manifest) -> None:
    process = zygotes.warm(ENVIRONMENT, manifest).process
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ended(tmp_path / "1", zygotes, manifest).exit_code == 3


def test_a_zygote_that_is_given_up_wakes_who_waits_for_its_answer(
    tmp_path: Path, zygotes: Zygotes, manifest: Manifest
) -> None:
    """Of several that had it fork at the same time the first gives it up; the others begin again as well."""
    hung = zygotes.warm(ENVIRONMENT, manifest)
    hung.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, hung.process.pid, os.WSTOPPED)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ended, tmp_path / "1", zygotes, manifest)
        while not hung.lock.locked():
            os.sched_yield()
        zygotes._discard(hung)
        assert waiting.result(60).exit_code == 3
    with pytest.raises(_Gone):
        _receive(hung.control, 1.0)


def test_idle_zygotes_end(clock: FakeClock, zygotes: Zygotes, manifest: Manifest) -> None:
    zygote = zygotes.warm(ENVIRONMENT, manifest)
    clock.advance(899)
    zygotes.end_idle()
    assert zygotes.names() == ("toy",)
    clock.advance(2)
    zygotes.end_idle()
    assert zygotes.names() == ()
    assert zygote.process.poll() is not None


def test_beyond_the_number_to_keep_the_least_recently_used_ends(
    clock: FakeClock, zygotes: Zygotes, manifest: Manifest
) -> None:
    zygotes.warm(ENVIRONMENT, manifest)
    clock.advance(1)
    newer = zygotes.warm(Environment("toy", "another", ENVIRONMENT.python), manifest)
    zygotes.end_idle()
    assert zygotes.names() == ("toy",)
    assert newer.process.poll() is None


def test_a_framework_that_cannot_be_imported_is_refused_with_the_reason(
    tmp_path: Path, zygotes: Zygotes
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.toml").write_text(
        'name="broken"\nversion="1"\nmodule="x"\nrepositories=[]\nroles=["serve"]\nenvironment="host"\n'
        'preload=["no_such_module"]\n'
    )
    broken = Catalog.load(tmp_path).named("broken")
    assert broken is not None
    with pytest.raises(Refused, match="no_such_module") as refused:
        zygotes.warm(ENVIRONMENT, broken)
    assert refused.value.code == "StartFailed"
    assert zygotes.names() == ()


def test_what_needs_a_process_of_its_own(manifest: Manifest) -> None:
    assert not needs_fresh_start(manifest, {"OTHER": "1"})
    assert needs_fresh_start(manifest, {"TOY_IMPORT": "1"})


def test_a_second_minder_of_the_same_instance_starts_nothing(
    tmp_path: Path, zygotes: Zygotes, manifest: Manifest
) -> None:
    directory = tmp_path / "1"
    assert ended(directory, zygotes, manifest).exit_code == 3
    before = (directory / "log").read_text()
    descriptor = os.open(directory / "log", os.O_WRONLY | os.O_APPEND)
    try:
        zygotes.fork(ENVIRONMENT, manifest, {}, directory, descriptor)
    finally:
        os.close(descriptor)
    other = tmp_path / "2"
    ended(other, zygotes, manifest)  # forks are in turn, so the second minder is past its claim or gone
    assert (directory / "log").read_text() == before


def _wait_for_minder(directory: Path) -> None:
    """Until the minder is there and gone again."""
    minder: ProcessIdentity | None = None
    while minder is None:
        minder = files.minder_of(directory)
        os.sched_yield()
    assert wait_gone([minder], 60) == []
