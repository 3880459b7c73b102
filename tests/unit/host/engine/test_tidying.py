"""Containers that could not be removed are removed later, by one thread at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from clary.host.engine.api import EngineClient
from clary.host.engine.containers import Containers, Ready
from clary.host.engine.creation import Abilities
from clary.host.engine.engines import Engine, Engines, NoEngine
from clary.host.engine.images import Held
from clary.settings import Settings
from engines.harness import container_spec

A_MOMENT_S = 0.2


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


class Slow(Engines):
    """An engine that answers, and takes its time to remove the first container."""

    def __init__(self) -> None:
        super().__init__("none", {}, Path("/nowhere"))
        self.removed: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def get(self) -> Engine:
        return Engine(cast(EngineClient, SimpleNamespace(path="/nowhere", remove=self.remove)), Abilities())

    def remove(self, name: str) -> None:
        self.removed.append(name)
        if len(self.removed) == 1:
            self.meanwhile()


def test_a_container_is_removed_once_however_many_are_at_it(tmp_path: Path) -> None:
    """The next one of its name may be there when the second comes."""
    engines = Slow()
    containers = Containers(
        engines, Settings(data_dir=tmp_path, cache_dir=tmp_path), {}, lambda spec, directory: {}
    )
    begun = threading.Event()

    def tidy_as_well() -> None:
        begun.set()
        containers.tidy()

    with ThreadPoolExecutor(1) as pool:

        def meanwhile() -> None:
            second = pool.submit(tidy_as_well)
            begun.wait()
            wait([second], A_MOMENT_S)  # for nothing: a time that is too short is no false alarm

        engines.meanwhile = meanwhile
        containers.discard("i-1")
    assert len(engines.removed) == 1


def test_what_is_left_of_an_instance_is_not_removed_once_it_is_started_again(tmp_path: Path) -> None:
    engines = Slow()
    containers = Containers(
        engines, Settings(data_dir=tmp_path, cache_dir=tmp_path), {}, lambda spec, directory: {}
    )
    spec = container_spec(1)
    containers._left.update({spec.instance_id, "i-other"})
    containers.plan(spec, tmp_path, Ready(engines.get(), cast(Held, None)))
    containers.tidy()
    assert engines.removed == [containers._name("i-other")]


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
