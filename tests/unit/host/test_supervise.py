"""What must hold of an instance whatever else happens at the same moment."""

import fcntl
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clary.domain.instances import Failure, InstanceId
from clary.host.launching import Launcher
from clary.host.models import Models
from clary.host.records import Instance, erase
from clary.host.service import Host
from clary.host.supervise import Instances
from clary.links import instances as files
from clary.links.processes import ProcessIdentity
from clary.telemetry.logs import LogFiles
from clary.testing.clock import FakeClock
from hosting.harness import toy_spec


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    clock = FakeClock()
    (tmp_path / "i").mkdir()
    return Instances(tmp_path / "i", cast(Launcher, None), LogFiles(tmp_path / "logs", clock, 1000), clock)


def known(instances: Instances, state: files.State) -> Instance:
    spec = toy_spec(1)
    instance = Instance(spec, instances._root / spec.instance_id, state)
    instance.directory.mkdir()
    instances._records[spec.instance_id] = instance
    return instance


def test_an_instance_that_is_told_to_end_does_not_become_ready(instances: Instances) -> None:
    """A ping may be on its way when the memory of an instance that starts is over its limit."""
    instance = known(instances, files.State("starting", 0.0))
    instances.end_because(instance, Failure("OutOfMemory", "too much"))
    instances.became_ready(instance)
    assert (instance.state.phase, instance.state.ready_at) == ("starting", None)


@pytest.mark.parametrize(("code", "end_by"), [("OutOfMemory", 30.0), ("OutOfDisk", 0.0)])
def test_H08_one_that_stops_has_no_more_time_for_the_disk_only(
    instances: Instances, code: str, end_by: float
) -> None:
    instance = known(instances, files.State("stopping", 0.0, stopping=True))
    began = instances._clock.monotonic()
    instance.end_by = began + 30.0
    instances.end_because(instance, Failure(code, "too much"))
    assert instance.end_by == began + end_by
    assert instance.state.failure is None


def test_what_has_the_pid_of_a_minder_that_is_gone_is_left_alone(instances: Instances) -> None:
    instance = known(instances, files.State("stopping", 0.0, stopping=True))
    instance.minder = ProcessIdentity(os.getpid(), 1)
    instance.end_by = 0.0
    with subprocess.Popen(["sleep", "60"]) as child:
        instances.enforce()
        child.terminate()  # too late for one that was killed
        assert child.wait() == -signal.SIGTERM


def test_a_start_that_got_no_thread_has_failed(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is started once: it would be on its way for ever."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    spec = toy_spec(1)
    instances.start(spec)
    status = instances.inspect([spec.instance_id])[0]
    assert status.failure is not None
    assert (status.phase, status.failure.code) == ("exited", "StartFailed")
    assert "try again" in status.failure.reason


@pytest.mark.parametrize("begins", [True, False])
def test_while_a_minder_is_waited_for_others_may_ask(
    instances: Instances, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    """A start has failed, but a minder has the lock: it begins the instance within moments, or ends."""
    instances._launcher = cast(Launcher, SimpleNamespace(container_for=lambda spec: None))
    instance = known(instances, files.State("starting", 0.0))
    seen: list[bool] = []
    with ExitStack() as minder, ThreadPoolExecutor(1) as other:
        lock = minder.enter_context((instance.directory / files.LOCK).open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)

        def go_on(_: float) -> None:
            seen.append(other.submit(instances._changed.acquire, False).result())
            if seen[-1]:
                other.submit(instances._changed.release).result()
            if begins:
                files.write(instance.directory, files.PROCESS, ProcessIdentity(1 << 30, 1))
            else:
                minder.close()

        monkeypatch.setattr("time.sleep", go_on)
        instances._give_up(instance, Failure("StartFailed", "no minder"))
    assert seen == [True]
    assert instance.ended.is_set()
    assert instance.state.failure is not None
    assert instance.state.failure.code == "StartFailed"
    exit = files.read(instance.directory, files.EXIT, files.Exit)
    assert (exit is None, instance.minder is not None) == (begins, begins)


def test_no_minder_begins_what_was_told_to_end_while_it_was_started(instances: Instances) -> None:
    instance = known(instances, files.State("stopping", 0.0, stopping=True))
    instances._give_up(instance, Failure("StartFailed", "no minder"))
    assert (instance.ended.is_set(), instance.state.failure) == (True, None)
    assert files.read(instance.directory, files.EXIT, files.Exit) == files.Exit(instances._now(), asked=True)


def test_a_host_starts_although_a_minder_of_the_one_before_has_to_be_waited_for(instances: Instances) -> None:
    spec = toy_spec(1)
    directory = instances._root / spec.instance_id
    directory.mkdir()
    files.write(directory, files.SPEC, spec)
    files.write(directory, files.STATE, files.State("stopping", 0.0, stopping=True))
    with (directory / files.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        instances.open(cast(Any, None))
        instance = instances.find(InstanceId(spec.instance_id))
        assert instance is not None
        assert not instance.ended.is_set()
    assert instance.ended.wait(60)
    assert instance.state.failure is None


def test_what_is_erased_goes_at_once_and_may_be_erased_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a start that is still on its way would put there finds no place, whatever removing it takes."""
    directory = tmp_path / "i-1"
    for _ in range(2):
        (directory / "opt").mkdir(parents=True)
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", lambda path, **options: None)  # as if it took its time
            erase(directory)
        assert not directory.exists()
        erase(directory)
    assert list(tmp_path.iterdir()) == []


def test_models_of_an_instance_that_came_during_a_look_at_all_are_kept(instances: Instances) -> None:
    """The look takes its time, and an instance that was not there at its beginning may serve before its end."""
    kept: list[Callable[[InstanceId], bool]] = []
    instance: list[Instance] = []

    def drain(is_known: Callable[[InstanceId], bool]) -> None:
        instance.append(known(instances, files.State("ready", 0.0)))
        instance[0].minder = ProcessIdentity(1 << 30, 1)

    nothing = SimpleNamespace(tidy_later=lambda: None, mark=lambda: None, end_idle=lambda: None)
    host = SimpleNamespace(
        _instances=instances,
        _containers=nothing,
        _logs=nothing,
        _zygotes=nothing,
        _metering=SimpleNamespace(drain=drain),
        _models=SimpleNamespace(keep=kept.append),
    )
    Host._tick(cast(Host, host), meter=True)
    assert kept[0](instance[0].id)
    assert not kept[0](InstanceId("i-unknown"))


def test_models_of_instances_that_come_while_others_are_forgotten_are_kept() -> None:
    """Whoever is asked which instances there are may need the same locks: nothing is held meanwhile."""
    closed: list[str] = []

    def shelf(name: str) -> Any:
        return SimpleNamespace(close=lambda: closed.append(name))

    models = Models.__new__(Models)
    models._lock, models._opening = threading.Lock(), {}
    models._shelves = {InstanceId("i-gone"): shelf("i-gone")}

    def is_known(id: InstanceId) -> bool:
        assert not models._lock.locked()
        models._shelves[InstanceId("i-new")] = shelf("i-new")
        return False

    models.keep(is_known)
    assert (list(models._shelves), closed) == (["i-new"], ["i-gone"])
