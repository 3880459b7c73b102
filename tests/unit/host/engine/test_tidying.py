"""Containers that could not be removed are removed later, by one thread at a time, and no others in their place."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clary.host.engine.api import EngineClient
from clary.host.engine.containers import Containers, Ready
from clary.host.engine.creation import INSTANCE, Abilities
from clary.host.engine.engines import Engine, Engines, NoEngine
from clary.host.engine.images import Held
from clary.host.engine.leftovers import Leftovers
from clary.settings import Settings
from engines.harness import container_spec


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
    leftovers = containers._leftovers
    assert leftovers._tidying is not None
    leftovers._tidying.join()
    containers.tidy_later()
    leftovers._tidying.join()
    assert engines.asked == 3


class Answering:
    """An engine that removes what it is told to; `before` is called when it is found."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.before: Callable[[], object] = lambda: None
        self.meanwhile: Callable[[], object] = lambda: None

    def get(self) -> Any:
        self.before()
        return SimpleNamespace(client=self)

    running = get

    def labelled(self, *labels: str) -> list[dict[str, Any]]:
        return [{"Id": "0123", "Labels": {INSTANCE: "i-1"}}, {"Id": "4567", "Labels": {INSTANCE: "i-2"}}]

    def remove(self, container: str) -> None:
        self.removed.append(container)
        self.meanwhile()


@pytest.fixture
def engine() -> Answering:
    return Answering()


@pytest.fixture
def leftovers(engine: Answering) -> Leftovers:
    return Leftovers(cast(Engines, engine))


def test_what_is_left_is_removed_once(engine: Answering, leftovers: Leftovers) -> None:
    for name in ("two", "one"):
        leftovers.add(name)
    leftovers.tidy()
    leftovers.tidy()
    assert engine.removed == ["one", "two"]


def test_of_two_who_tidy_one_removes_and_what_comes_by_the_name_later_stays(
    engine: Answering, leftovers: Leftovers
) -> None:
    leftovers.add("one")

    def tidy_too() -> None:
        engine.before = lambda: None
        leftovers.tidy()

    engine.before = tidy_too
    leftovers.tidy()
    assert engine.removed == ["one"]


def test_the_container_of_an_instance_that_is_started_anew_is_wanted(
    engine: Answering, leftovers: Leftovers
) -> None:
    leftovers.add("one")
    engine.before = lambda: leftovers.forget("one")
    leftovers.tidy()
    assert engine.removed == []


def test_an_instance_is_started_anew_when_what_was_left_of_it_has_gone(
    engine: Answering, leftovers: Leftovers
) -> None:
    leftovers.add("one")
    with ThreadPoolExecutor(1) as pool:
        started = []

        def start() -> None:
            started.append(pool.submit(leftovers.forget, "one"))
            assert not started[0].done()

        engine.meanwhile = start
        leftovers.tidy()
        started[0].result(60)
    assert engine.removed == ["one"]


def test_what_belongs_to_no_instance_is_removed_and_never_by_a_name_that_may_be_taken_again(
    engine: Answering, tmp_path: Path
) -> None:
    known = Settings(data_dir=tmp_path, cache_dir=tmp_path)
    Containers(cast(Engines, engine), known, {}, lambda spec, directory: {}).sweep(lambda: {"i-2"})
    assert engine.removed == ["0123"]


def test_a_start_is_planned_only_when_nothing_will_take_its_container_for_the_one_before(
    engine: Answering, tmp_path: Path
) -> None:
    known = Settings(data_dir=tmp_path, cache_dir=tmp_path)
    containers = Containers(cast(Engines, engine), known, {}, lambda spec, directory: {})
    spec = container_spec(1)
    for id in (spec.instance_id, "i-other"):
        containers._leftovers.add(containers._name(id))
    ready = Ready(Engine(cast(EngineClient, SimpleNamespace(path="/nowhere")), Abilities()), cast(Held, None))
    containers.plan(spec, tmp_path, ready)
    containers.tidy_within(60)
    assert engine.removed == [containers._name("i-other")]
