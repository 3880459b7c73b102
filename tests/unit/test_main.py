"""Control, put together, while a part of the server is away."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clary import credentials, main, settings
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.links import hosts
from clary.main import Control
from clary.settings import Settings
from clary.telemetry.aggregates import Metric
from clary.telemetry.metrics import Recorder
from clary.testing.clock import FakeClock
from failing_disk import FailingDisk


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    found = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", ephemeral=True)
    found.run_dir.mkdir(parents=True)
    credentials.ensure(found)
    control = Control(found, FakeClock())
    yield control
    control._close()
    for part in (control._metrics, control._blobs, control._store):
        part.close()


def test_U05_a_reset_while_the_host_is_away_asks_for_another_try(control: Control) -> None:
    with pytest.raises(Fault, match=r"no host answers .* Try again") as caught:
        control._reset()
    assert (caught.value.code, caught.value.status) == ("ServiceUnavailable", 503)


def test_U05_metrics_under_way_during_a_reset_count_no_more(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of a gateway and of the host were sent before the reset and are stored after it."""
    clock = control._clock
    assert isinstance(clock, FakeClock)
    gateway, host = Recorder("gateway-0:1:1", clock), Recorder("host:1:1", clock)
    for recorder in (gateway, host):
        recorder.series("1", "r", "n", recorder._source, {}).observe(1.0)
        recorder.drain()
    (late,) = gateway.pending()
    told: list[Any] = []

    def answer(operation: str, arguments: Any, *_: object) -> Any:
        if operation == "take_metrics":
            told.append(arguments)
            return host.pending()
        return []

    monkeypatch.setattr(control._host, "call", answer)
    clock.advance(1.0)
    control._reset()
    control._ingest(late)
    control._host_metrics.collect()
    assert control._metrics.metrics("1", "r") == []
    assert {each.since_ms for each in told} == {control._metrics.since_ms}
    assert control._hub._book.news(0).metrics_since_ms == control._metrics.since_ms
    for recorder in (gateway, host):
        recorder.begin(control._metrics.since_ms)
        recorder.series("1", "r", "n", recorder._source, {}).observe(2.0)
        recorder.drain()
    control._ingest(*gateway.pending())
    control._host_metrics.collect()
    assert isinstance(told[-1], hosts.TakeMetrics)
    for recorder in (gateway, host):
        assert Metric("1", "r", "n", recorder._source, ()) in control._metrics.metrics("1", "r")


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_H01_control_that_finds_the_disk_full_says_so_and_starts_when_there_is_room(
    root: Path,
    disk: FailingDisk,
    is_first: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At whichever write of its start, also the first start of all, and without a trace of where in the code."""
    found = Settings(data_dir=root / "data", cache_dir=root / "cache")
    begun: list[Control] = []
    opened: list[FilesystemBlobs] = []

    def blobs(root: Path, clock: Clock) -> FilesystemBlobs:
        opened.append(FilesystemBlobs(root, clock))
        return opened[-1]

    async def begin(control: Control) -> None:
        begun.append(control)
        control.table()
        await control._begin()

    def run() -> None:
        monkeypatch.setattr("sys.argv", ["control", "--settings", str(root / "settings.json")])
        try:
            main.main()
        finally:
            for control in begun:
                control._close()
                for part in (control._metrics, control._blobs, control._store):
                    part.close()
            for each in opened:  # its lock, which the end of a process would give back
                each.close()
            begun.clear()
            opened.clear()

    for directory in (found.run_dir, found.keys_dir):
        directory.mkdir(parents=True)
    credentials.ensure(found)
    (root / "settings.json").write_text(settings.dump(found))
    monkeypatch.setattr(Control, "run", begin)
    monkeypatch.setattr(main, "FilesystemBlobs", blobs)
    monkeypatch.setattr("clary.telemetry.server_log.configure", lambda level: None)
    monkeypatch.setattr("clary.links.priorities.give_way", lambda by: None)
    if not is_first:
        run()
    for at in (1, 2, 3, 4, 5, 8, 13, 34, 53, 89, *range(288, 312, 3)):
        caplog.clear()
        with disk.full_at(at, lasting=True) as attempt:
            try:
                run()
            except SystemExit as end:
                assert end.code == os.EX_TEMPFAIL
                (told,) = [each for each in caplog.records if each.name == "clary.control"]
                assert "free some space" in told.message
                assert told.exc_info is None
            else:
                assert at > 1, attempt.failed
    run()
