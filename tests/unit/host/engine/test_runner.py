"""The runner beside a container: what it carries, whatever becomes of the engine."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from clary.host.engine.api import EngineClient, Output
from clary.host.engine.notes import Note
from clary.host.engine.runner import Plan, _Running


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
    running = _Running(plan, engine, Note(), cast(Output, broken), None, None, 8080)
    running._over.set()
    running._carry_output(broken)
    assert broken.closed
