"""The runner beside a container: what it carries, whatever becomes of the engine."""

import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from clary.host.engine.api import EngineClient, Output
from clary.host.engine.killings import Killings
from clary.host.engine.notes import Note
from clary.host.engine.runner import Plan, _is_alive, _Running, _start_time


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
    running = _Running(plan, engine, Note(), cast(Output, broken), Killings(0), None, None, 8080)
    running._over.set()
    running._carry_output(broken)
    assert broken.closed


def test_a_container_whose_end_nobody_has_noted_yet_has_ended() -> None:
    """Else the door that does not open into it would be taken for the reason."""
    child = os.fork()
    if child == 0:
        signal.pause()
    note = Note("c", child, _start_time(child))
    assert _is_alive(note)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not _is_alive(note)
    os.waitpid(child, 0)
    assert not _is_alive(Note("c", child, _start_time(child)))
