"""One instance's models without an instance: what happens at the same time, and what a crash leaves behind."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clary.blobs.base import NoSuchKey
from clary.domain.clock import SystemClock
from clary.domain.instances import InstanceId, ModelSource
from clary.host.archives import Limits, Unpacked
from clary.host.models_client import Answer, Said
from clary.host.models_files import ModelFiles, Note
from clary.host.models_loading import Bounds
from clary.host.models_shelf import Shelf
from clary.host.models_tasks import IN_BACKGROUND
from clary.links.hosts import HostError
from scarce_threads import refuse_threads

ID = InstanceId("i-1")


class Bucket:
    """Objects by target: their etags."""

    def __init__(self, **etags: str) -> None:
        self.etags = etags

    def open(self, bucket: str, key: str) -> Any:
        target = key.removeprefix("models/")
        if target not in self.etags:
            raise NoSuchKey(key)
        return Opened(self.etags[target])


class Opened:
    def __init__(self, etag: str) -> None:
        self.info = SimpleNamespace(etag=etag)
        self.path = ""

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *how: object) -> None: ...


class Unpacking:
    """Every archive is two files of ten bytes."""

    def unpack(self, source: str, target: Path, *more: object) -> Unpacked:
        for name in ("one", "two"):
            (target / name).write_bytes(b"x" * 10)
        return Unpacked(members=2, size_bytes=20)


class Container:
    """By the contract; `room` models fit into it."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.held: set[str] = set()
        self.most_held = 0
        self.asked: list[tuple[str, str]] = []
        self.before_load: Callable[[], None] = lambda: None

    def load(self, name: str, url: str, timeout_s: float) -> Answer:
        self.asked.append(("load", name))
        self.before_load()
        if name in self.held:
            return Answer(409, "it is loaded")
        if len(self.held) >= self.room:
            return Answer(507, "no memory")
        self.held.add(name)
        self.most_held = max(self.most_held, len(self.held))
        return Answer(200, "{}")

    def unload(self, name: str) -> Answer:
        self.asked.append(("unload", name))
        was_held = name in self.held
        self.held.discard(name)
        return Answer(200 if was_held else 404, "")

    def look(self, name: str) -> Answer:
        return Answer(200 if name in self.held else 404, "{}")

    def loaded(self) -> Iterator[tuple[str, Said]]:
        return iter([(name, Said()) for name in self.held])

    def close(self) -> None: ...


class Innocent:
    def why(self, uri: str, etag: str) -> str:
        return ""


def files_at(directory: Path) -> ModelFiles:
    return ModelFiles(directory, Unpacking(), Limits(10, 1000, 100.0))  # type: ignore[arg-type]


def shelf_at(
    directory: Path, container: Container, bucket: Bucket, *, loaded: int = 0, disk_bytes: int = 0
) -> Shelf:
    shelf = Shelf(
        ID,
        ModelSource("s3://b/models/"),
        files=files_at(directory),
        client=container,  # type: ignore[arg-type]
        blobs=bucket,  # type: ignore[arg-type]
        clock=SystemClock(),
        bounds=Bounds(loaded, disk_bytes, 0.0, 10.0),
        base="/opt/ml/models",
        is_built_in=True,
        meter=lambda metric, seconds: None,
        blamed=Innocent(),
    )
    shelf.recover()
    return shelf


def refusal(shelf: Shelf, target: str) -> str:
    try:
        shelf.load(target, 600.0)  # whoever waits for a place may be overtaken often
    except HostError as error:
        return error.code
    return ""


@contextmanager
def threads_that_take_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def states(shelf: Shelf) -> dict[str, str]:
    return {each.target_model: each.state for each in shelf.statuses()}


def test_M02_models_for_which_there_is_no_room_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    container = Container(room=0)
    both = threading.Barrier(2)

    def come_together() -> None:
        if len(container.asked) <= 2:
            both.wait(30)

    container.before_load = come_together
    shelf = shelf_at(tmp_path, container, Bucket(a="1", b="1"))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda target: refusal(shelf, target), "ab")) == ["NoRoom", "NoRoom"]


def test_M02_what_the_container_holds_unknown_to_the_host_makes_room(tmp_path: Path) -> None:
    """As after a host that ended while the container loaded a model."""
    container = Container(room=1)
    shelf = shelf_at(tmp_path, container, Bucket(a="1", b="1"))
    name = shelf.load("a", 30.0).name
    container.held.clear()
    later = shelf_at(tmp_path, container, Bucket(a="1", b="1"))
    assert states(later) == {"a": "on disk"}
    container.held.add(name)
    assert later.load("b", 30.0).name in container.held
    assert states(later) == {"a": "on disk", "b": "loaded"}
    assert len(container.held) == 1


def test_M03_what_a_container_still_holds_of_an_older_object_is_loaded_anew(tmp_path: Path) -> None:
    container = Container()
    bucket = Bucket(a="1")
    name = shelf_at(tmp_path, container, bucket).load("a", 30.0).name
    container.held.clear()
    later = shelf_at(tmp_path, container, bucket)
    container.held.add(name)
    bucket.etags["a"] = "2"
    later.load("a", 30.0)
    assert container.asked[-3:] == [("load", name), ("unload", name), ("load", name)]


def test_M03_callers_of_a_model_that_is_not_there_all_hear_so(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path, Container(), Bucket())
    with threads_that_take_turns(), ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda _: refusal(shelf, "absent"), range(800)))
    assert said == {"ModelMissing"}
    assert states(shelf) == {}


def test_M02_a_load_that_cannot_begin_is_begun_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = shelf_at(tmp_path, Container(), Bucket(a="1"))
    with monkeypatch.context() as patched:
        refuse_threads(patched)
        assert refusal(shelf, "a") == "Busy"
    assert refusal(shelf, "a") == ""


def test_M04_many_pins_are_a_few_loads_at_a_time(tmp_path: Path) -> None:
    container = Container()
    under_way, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def count() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            if under_way == IN_BACKGROUND:
                full.set()
        full.wait(30)
        with lock:
            under_way -= 1

    container.before_load = count
    targets = [f"m{number}" for number in range(40)]
    shelf = shelf_at(tmp_path, container, Bucket(**dict.fromkeys(targets, "1")))
    for target in targets:
        shelf.pin(target, is_pinned=True)
    for target in targets:
        shelf.load(target, 30.0)
    assert set(states(shelf).values()) == {"loaded"}
    assert most <= IN_BACKGROUND + 1  # and the one that is called here


def test_M04_to_unpin_what_nobody_has_called_leaves_no_trace(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path, Container(), Bucket(a="1"))
    shelf.pin("a", is_pinned=False)
    assert states(shelf) == {}


def test_M02_a_model_of_which_a_crash_left_a_part_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def remove_one_and_die(folder: Path, ignore_errors: bool = False) -> None:
        next(path for path in Path(folder).rglob("*") if path.is_file()).unlink()
        raise Killed

    files = files_at(tmp_path)
    for name in ("removed", "replaced"):
        files.note(Note(name, name, "1", 20, 1.0))
        files.put_away(name)
        files.place(files.fetch("", 1.0)[0], name)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove_one_and_die)
        with pytest.raises(Killed):
            files.remove("removed")
        with pytest.raises(Killed):
            files.put_away("replaced")
    assert list(files_at(tmp_path).recover()) == []


def test_M02_models_in_turns_are_never_refused_for_want_of_a_place(tmp_path: Path) -> None:
    container = Container()
    shelf = shelf_at(tmp_path, container, Bucket(**dict.fromkeys("abcdef", "1")), loaded=2)
    with threads_that_take_turns(), ThreadPoolExecutor(6) as pool:
        refused = set(pool.map(lambda target: refusal(shelf, target), "abcdef" * 60))
    assert refused == {""}
    assert container.most_held == 2


def test_M02_models_in_turns_are_never_refused_for_want_of_memory_or_disk(tmp_path: Path) -> None:
    container = Container(room=2)
    shelf = shelf_at(tmp_path, container, Bucket(**dict.fromkeys("abcdef", "1")), disk_bytes=60)
    with threads_that_take_turns(), ThreadPoolExecutor(6) as pool:
        refused = set(pool.map(lambda target: refusal(shelf, target), "abcdef" * 40))
    assert refused == {""}
    assert sum(each.size_bytes for each in shelf.statuses()) <= 60
