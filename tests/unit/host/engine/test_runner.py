"""The runner beside a container: what it carries, whatever becomes of the engine."""

import http.client
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from clary.host.engine import notes, runner
from clary.host.engine.api import EngineClient, Output
from clary.host.engine.killings import Killings
from clary.host.engine.notes import Note
from clary.host.engine.runner import Plan, _First, _is_alive, _Running, _start_time, main


class Broken:
    """The output of an engine that was killed in the middle of a piece."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        raise http.client.IncompleteRead(b"so far")

    def close(self) -> None:
        self.closed = True


def test_output_that_breaks_off_in_the_middle_is_an_engine_that_went_away(tmp_path: Path) -> None:
    engine = cast(EngineClient, None)
    plan = Plan("", "name", {}, str(tmp_path), 8080, published=False, platform="")
    broken: Any = Broken()
    first = _First(Note(), None, Killings(0))
    running = _Running(plan, engine, first, cast(Output, broken), None, 8080)
    running._over.set()
    running._carry_output(broken)
    assert broken.closed


class Deadly:
    """An engine whose container reaches its memory at once and is gone when `start` returns."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def create(self, name: str, body: Mapping[str, object]) -> str:
        return "container"

    def attach(self, container: str) -> Any:
        return Broken()

    def start(self, container: str) -> None:
        self._process.kill()
        self._process.wait()

    def inspect(self, container: str) -> dict[str, Any]:
        ports = {"8080/tcp": [{"HostPort": "1"}]}
        state = {"Pid": self._process.pid, "OOMKilled": False}
        return {"State": state, "NetworkSettings": {"Ports": ports}}

    def wait(self, container: str, timeout_s: float) -> int:
        return 128 + signal.SIGKILL

    def remove(self, container: str) -> None: ...


class Brief(Deadly):
    """An engine whose container ends by itself while it is asked for its port, which goes with it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        super().__init__(process)
        self._looks = 0

    def start(self, container: str) -> None: ...

    def inspect(self, container: str) -> dict[str, Any]:
        self._looks += 1
        if self._looks == 1:
            return super().inspect(container)
        super().start(container)
        return {"State": {"Pid": 0, "OOMKilled": False}, "NetworkSettings": {"Ports": {}}}

    def wait(self, container: str, timeout_s: float) -> int:
        return 3


class Seen:
    """The kernel's count, for whoever opens it while the process is there."""

    def __init__(self, pid: int) -> None:
        self._count = 1 if _start_time(pid) else 0

    def count(self) -> int:
        return self._count


def test_H04_a_container_that_is_out_of_memory_at_once_is_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman makes its first process before it is started. What came too late to see it would take it for killed."""
    monkeypatch.setattr(runner, "Killings", Seen)
    note = note_of_one_that_ends(monkeypatch, Deadly)
    assert (note.out_of_memory, note.exit_code) == (True, 128 + signal.SIGKILL)


def test_H04_a_container_that_ends_before_its_port_is_known_is_said_to_have_exited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine forgets the port with the end. That it did not publish it would be no word of what happened."""
    note = note_of_one_that_ends(monkeypatch, Brief)
    assert (note.refused, note.exit_code) == ("", 3)


def note_of_one_that_ends(monkeypatch: pytest.MonkeyPatch, kind: type[Deadly]) -> Note:
    with (
        tempfile.TemporaryDirectory(prefix="cr-") as directory,
        subprocess.Popen(["sleep", "3600"]) as process,
    ):
        engine = kind(process)
        monkeypatch.setattr(runner, "EngineClient", lambda path: engine)
        plan = {"engine": "", "name": "n", "creation": {}, "directory": directory, "port": 8080}
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = main({**plan, "published": True, "platform": ""})
        finally:
            signal.signal(signal.SIGTERM, before)
        note = notes.read(Path(directory))
    assert note is not None
    assert code == note.exit_code, note.refused
    return note


def test_one_that_has_ended_is_not_taken_for_alive_before_its_end_is_heard() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert not _is_alive(Note(pid=process.pid, start_time=_start_time(process.pid)))
