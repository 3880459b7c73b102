"""When pings say that an instance is unwell: after several in a row, never after one."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from clary.domain.instances import Failure, InstanceId, InstanceSpec, LogTarget
from clary.host import limits, watching
from clary.host.engine import notes
from clary.host.probing import Answer
from clary.host.records import Instance
from clary.host.watching import FAILURES_TO_BE_UNHEALTHY, MemoryWatch, Pace, PingWatcher, _Probing
from clary.links.instances import State
from clary.links.processes import ProcessIdentity
from clary.testing.clock import FakeClock

WELL, SLOW = Answer(True, "HTTP 200"), Answer(False, "no answer within 2 s")


class Told:
    def __init__(self) -> None:
        self.news: list[str] = []

    def became_ready(self, instance: Instance) -> None:
        self.news.append("ready")

    def became_unhealthy(self, instance: Instance, answer: str) -> None:
        self.news.append(f"unhealthy: {answer}")

    def end_because(self, instance: Instance, failure: Failure) -> None:
        self.news.append(failure.code)

    def has_ended(self, instance: Instance, probe: str) -> None:
        self.news.append("ended")


@pytest.mark.parametrize(
    ("answers", "news"),
    [
        ([SLOW, WELL], ["ready"]),
        ([SLOW, SLOW, WELL, SLOW, SLOW, WELL], ["ready", "ready"]),
        ([SLOW] * FAILURES_TO_BE_UNHEALTHY, ["unhealthy: no answer within 2 s"]),
    ],
    ids=["one is nothing", "they must come in a row", "three"],
)
def test_H10_only_pings_that_fail_in_a_row_make_an_instance_unhealthy(
    tmp_path: Path, answers: list[Answer], news: list[str]
) -> None:
    told = Told()
    spec = InstanceSpec(InstanceId("i"), "serve", "image", LogTarget("1", "r", "g", "s"))
    probing = _Probing(Instance(spec, tmp_path, State("ready", 0.0)), told, Pace(5.0, 2.0), FakeClock())
    for answer in answers:
        probing.last = answer
        probing._judge(waited_s=1000.0)
    assert told.news == news
    assert watching.FAILURES_TO_BE_UNHEALTHY == 3


@pytest.mark.parametrize(
    ("took_s", "news"), [(2.0, ["unhealthy: no answer within 2 s"]), (20.0, [])], ids=["in time", "too late"]
)
def test_H10_a_ping_that_nobody_looked_after_in_time_says_nothing_of_the_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_s: float, news: list[str]
) -> None:
    """Where the whole machine stood still, the host finds the time of its pings over, and answers nobody read."""
    told, clock, gone = Told(), FakeClock(), asyncio.Event()
    pings = iter(range(FAILURES_TO_BE_UNHEALTHY, 0, -1))

    async def ping(path: str, timeout_s: float) -> Answer:
        clock.advance(took_s)
        if next(pings) == 1:
            gone.set()
        return SLOW

    monkeypatch.setattr(watching, "ping", ping)
    spec = InstanceSpec(InstanceId("i"), "serve", "image", LogTarget("1", "r", "g", "s"))
    probing = _Probing(Instance(spec, tmp_path, State("ready", 0.0)), told, Pace(0.0, 2.0), clock)
    asyncio.run(probing.run(gone))
    assert told.news == news


def test_an_end_that_could_not_be_noted_is_noted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "AGAIN_S", 0.0)
    noted = threading.Event()

    class Troubled(Told):
        def has_ended(self, instance: Instance, probe: str) -> None:
            self.news.append("ended")
            if len(self.news) == 1:
                raise OSError("too many open files")
            noted.set()

    watcher = PingWatcher(Troubled(), Pace(5.0, 2.0), FakeClock())
    spec = InstanceSpec(InstanceId("i"), "serve", "image", LogTarget("1", "r", "g", "s"))
    instance = Instance(spec, tmp_path, State("ready", 0.0), minder=ProcessIdentity(1 << 30, 1))  # long gone
    try:
        watcher.watch(instance)
        assert noted.wait(60)
    finally:
        watcher.close()


@pytest.mark.parametrize(
    ("holds", "mebibytes", "ended"),
    [(True, (65,), 0), (False, (65,), 1), (True, (65, 5), 0), (True, (35, 30), 1)],
    ids=["the engine", "the watch", "one of two", "two together"],
)
def test_H04_one_alone_ends_a_container_over_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool, mebibytes: Sequence[int], ended: int
) -> None:
    """Of two that watch, chance would say which of them finds the words. It is measured either way."""
    sizes = {pid: size << 20 for pid, size in enumerate(mebibytes, 1)}
    monkeypatch.setattr(limits, "exact_resident_bytes", lambda minder, pid: sizes[pid])
    measured = []
    for pid in sizes:
        spec = InstanceSpec(
            InstanceId(f"i-{pid}"), "serve", "", LogTarget("1", "r", "g", "s"), memory_bytes=64 << 20
        )
        (tmp_path / spec.instance_id).mkdir()
        notes.write(tmp_path / spec.instance_id, notes.Note("c", pid, 1, limits_memory=holds))
        state, minder = State("ready", 0.0), ProcessIdentity(pid, 1)
        measured.append((Instance(spec, tmp_path / spec.instance_id, state, minder=minder), sizes[pid]))
    told = Told()
    MemoryWatch(told).check([(each, limits.Usage(size, {})) for each, size in measured])
    assert told.news == ["OutOfMemory"] * ended
    assert [each.peak_bytes for each, _ in measured] == list(sizes.values())
