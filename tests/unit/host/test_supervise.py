"""What must hold of an instance whatever else happens at the same moment."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clary.domain.instances import Failure, InstanceId, InstanceSpec
from clary.host.engine import notes
from clary.host.launching import Launcher
from clary.host.models import Models
from clary.host.records import Instance, erase
from clary.host.service import Host
from clary.host.supervise import Instances, Watcher
from clary.host.unpacking import Cancelled
from clary.host.watching import MemoryWatch
from clary.links import instances as files
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.telemetry.logs import LogFiles
from clary.testing.clock import FakeClock
from hosting.harness import toy_spec
from scarce_threads import refuse_threads

NOBODY = ProcessIdentity(1 << 30, 1)


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    clock = FakeClock()
    (tmp_path / "i").mkdir()
    return Instances(tmp_path / "i", cast(Launcher, None), LogFiles(tmp_path / "logs", clock, 1000), clock)


def known(instances: Instances, state: files.State, number: int = 1) -> Instance:
    spec = toy_spec(number)
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
    refuse_threads(monkeypatch)
    spec = toy_spec(1)
    instances.start(spec)
    status = instances.inspect([spec.instance_id])[0]
    assert status.failure is not None
    assert (status.phase, status.failure.code) == ("exited", "StartFailed")
    assert "try again" in status.failure.reason


@pytest.mark.parametrize("has_begun", [True, False])
def test_H08_a_start_that_is_given_up_waits_for_no_minder(instances: Instances, has_begun: bool) -> None:
    """One may have the lock and stand still: it finds nothing to begin with, or has said who it is and is ended."""
    instances._launcher = cast(Launcher, SimpleNamespace(container_for=lambda spec: None))
    instance = known(instances, files.State("starting", 0.0))
    files.write(instance.directory, files.LAUNCH, files.Launch("m:f", {}))
    if has_begun:
        files.write(instance.directory, files.PROCESS, NOBODY)
    with (instance.directory / files.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        instances._give_up(instance, Failure("StartFailed", "no minder"))
    assert instance.ended.is_set()
    assert instance.state.failure is not None
    assert instance.state.failure.code == "StartFailed"
    assert not (instance.directory / files.LAUNCH).exists()
    exit = files.read(instance.directory, files.EXIT, files.Exit)
    assert (exit is None, instance.minder is not None) == (has_begun, has_begun)


def test_H08_a_start_is_given_up_also_where_descriptors_are_short(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would ever note its end. That is tried again, once nothing is in the way."""
    instance = known(instances, files.State("starting", 0.0))

    def refuse(directory: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as short:
        short.setattr(files, "minder_of", refuse)
        instances._give_up(instance, Failure("StartFailed", "no minder"))
        instances.enforce()
        assert not instance.ended.is_set()
    instances.enforce()
    assert instance.ended.is_set()
    assert instance.state.failure is not None
    assert instance.state.failure.reason == "no minder"


def test_no_minder_begins_what_was_told_to_end_while_it_was_started(instances: Instances) -> None:
    instance = known(instances, files.State("stopping", 0.0, stopping=True))
    instances._give_up(instance, Failure("StartFailed", "no minder"))
    assert (instance.ended.is_set(), instance.state.failure) == (True, None)
    assert files.read(instance.directory, files.EXIT, files.Exit) == files.Exit(instances._now(), asked=True)


def test_H08_what_is_told_to_end_before_it_has_a_process_may_have_one_of_the_host_before(
    instances: Instances,
) -> None:
    """It was forked as that host's last act, and said who it is after this one had looked."""
    instances._launcher = cast(Launcher, SimpleNamespace(container_for=lambda spec: None))
    instance = known(instances, files.State("fetching", 0.0))
    files.write(instance.directory, files.PROCESS, NOBODY)
    instances.stop([instance.id], 0)
    assert (instance.ended.is_set(), instance.minder) == (True, NOBODY)


def test_what_is_told_to_end_and_has_a_process_after_all_does_not_become_ready(instances: Instances) -> None:
    instance = known(instances, files.State("fetching", 0.0))
    instances._watcher = cast(Watcher, SimpleNamespace(watch=instances.became_ready))
    with subprocess.Popen(["sleep", "60"]) as child:
        files.write(instance.directory, files.PROCESS, processes.identify(child.pid))
        instances.stop([instance.id], 30)
        assert child.wait(60) == -signal.SIGTERM
    assert (instance.state.phase, instance.state.stopping) == ("stopping", True)


def left_behind(instances: Instances, state: files.State) -> InstanceId:
    """By an earlier host, without a minder."""
    spec = toy_spec(1)
    directory = instances._root / spec.instance_id
    directory.mkdir()
    files.write(directory, files.SPEC, spec)
    files.write(directory, files.STATE, state)
    return spec.instance_id


@pytest.mark.parametrize("failure", [None, Failure("StartFailed", "no minder")], ids=["asked", "failed"])
def test_what_the_host_before_was_about_to_end_has_ended(
    instances: Instances, failure: Failure | None
) -> None:
    """Also where a minder has the lock, of which nobody knows whether it ever begins."""
    state = files.State("starting", 0.0, stopping=failure is None, failure=failure)
    id = left_behind(instances, state)
    with (instances._root / id / files.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        instances.open(cast(Any, None))
    (status,) = instances.inspect([id])
    assert (status.phase, status.failure and status.failure.code) == (
        "exited",
        failure and failure.code,
    )


def test_what_begins_again_may_be_told_to_end_before_it_has_a_process(instances: Instances) -> None:
    """However far the host before had brought it."""
    goes_on, begun = threading.Event(), threading.Event()

    def container_for(spec: InstanceSpec) -> None:
        begun.set()
        assert goes_on.wait(60)
        raise Cancelled

    instances._launcher = cast(Launcher, SimpleNamespace(container_for=container_for))
    id = left_behind(instances, files.State("starting", 0.0))
    instances.open(cast(Any, None))
    assert begun.wait(60)
    instances.stop([id], 30)
    (status,) = instances.inspect([id])
    goes_on.set()
    assert (status.phase, status.failure) == ("exited", None)


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


def test_an_instance_that_cannot_be_measured_takes_nothing_from_the_others(instances: Instances) -> None:
    """On rung 0 one can put anything where its container's runner would write."""
    measured: list[InstanceId] = []
    unreadable, other = (known(instances, files.State("ready", 0.0), number) for number in (1, 2))
    unreadable.minder = other.minder = NOBODY
    (unreadable.directory / notes.FILE).mkdir()
    given_up = known(instances, files.State("starting", 0.0), 3)
    instances._unended.add(given_up)
    host = Host.__new__(Host)
    host._instances = instances
    host._memory = cast(MemoryWatch, SimpleNamespace(check=lambda unit: measured.append(unit[0][0].id)))
    host._logs = cast(LogFiles, SimpleNamespace(mark=lambda: None))
    host._tick(meter=False)
    assert measured == [other.id]
    assert given_up.ended.is_set()


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
