"""Containers that could not be removed are removed later, by one thread at a time."""

import threading
from pathlib import Path

from clary.host.engine.containers import Containers
from clary.host.engine.engines import Engine, Engines, NoEngine
from clary.settings import Settings


class Hanging(Engines):
    """An engine that is waited for."""

    def __init__(self) -> None:
        super().__init__("none", {}, Path("/nowhere"))
        self.asked = 0
        self.answers = threading.Event()

    def get(self) -> Engine:
        self.asked += 1
        if self.asked > 1:  # the first is `discard`'s own try
            self.answers.wait()
        raise NoEngine("it does not answer")


def test_an_engine_that_hangs_is_waited_for_by_one_thread(tmp_path: Path) -> None:
    engines = Hanging()
    containers = Containers(
        engines, Settings(data_dir=tmp_path, cache_dir=tmp_path), {}, lambda spec, directory: {}
    )
    containers.discard("i-1")
    for _ in range(5):
        containers.tidy_later()
    assert [each.name for each in threading.enumerate()].count("tidy-containers") == 1
    engines.answers.set()
    assert containers._tidying is not None
    containers._tidying.join()
    containers.tidy_later()
    containers._tidying.join()
    assert engines.asked == 3
