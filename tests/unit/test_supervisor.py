"""The supervisor with stand-ins for its processes: what it starts, what it adopts, and a disk that refuses."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from clary import supervisor
from clary.gateway import door
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings
from clary.supervisor import Supervisor
from clary.supervisor.names import locked
from clary.supervisor.rolling import Watched

PATIENCE_S = 30.0

# The supervisor follows its processes by their identity, adopted ones like its own, and keeps no handle of them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a data directory on which every process is one that only sleeps."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr("clary.supervisor.leading.command", lambda name, settings, listen_fd: sleep)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    found = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", port=0, gateways=1)
    yield found
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for path in found.run_dir.glob("*.pid.json"):
        if path.name != "supervisor.pid.json":
            processes.signal(processes.alive(path), signal.SIGKILL)


def _lose(leader: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a supervisor that was killed: its processes, and a socket that its gateways hand over."""
    listening = leader.socket
    assert listening is not None
    monkeypatch.setattr("clary.gateway.door.take_socket", lambda path: listening)
    os.close(leader._lock)


def _running(settings: Settings) -> dict[str, ProcessIdentity]:
    found = {
        path.name.partition(".")[0]: processes.alive(path) for path in settings.run_dir.glob("*.pid.json")
    }
    return {name: one for name, one in found.items() if one is not None and name != "supervisor"}


def test_Z02_a_full_disk_does_not_end_the_supervisor(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    leader = Supervisor(settings, said.append)
    leader.start()
    record = processes.record
    refused: list[ProcessIdentity] = []

    def full(path: Path, identity: ProcessIdentity | None = None) -> ProcessIdentity:
        if not refused and identity is not None:
            refused.append(identity)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return record(path, identity)

    before = _running(settings)
    monkeypatch.setattr(processes, "record", full)
    processes.signal(before["control"], signal.SIGKILL)
    for _ in range(100):
        leader.tend(PATIENCE_S)
        if refused and _running(settings).keys() == before.keys():
            break
    after = _running(settings)
    assert after.keys() == before.keys()
    assert after["control"] != before["control"]
    assert after["host"] == before["host"]
    assert not processes.is_alive(refused[0]), "a process that nobody can find must not stay"
    assert any("No space left" in line for line in said)
    leader.stop()
    assert _running(settings) == {}


def test_Z02_a_process_starts_once_the_one_before_has_let_go_of_its_lock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    leader = Supervisor(settings, said.append)
    leader.start()
    before = _running(settings)
    spawn = leader._spawn
    tries: list[str] = []

    def still_held(name: str) -> subprocess.Popen[bytes]:
        tries.append(name)
        if len(tries) == 1:
            with locked(settings, name):
                return spawn(name)
        return spawn(name)

    monkeypatch.setattr(leader, "_spawn", still_held)
    processes.signal(before["control"], signal.SIGKILL)
    for _ in range(100):
        leader.tend(PATIENCE_S)
        if len(tries) >= 2 and _running(settings).keys() == before.keys():
            break
    after = _running(settings)
    assert after.keys() == before.keys() and after["control"] != before["control"]
    assert any("the one before still holds its lock" in line for line in said)
    assert not any("temporarily unavailable" in line for line in said)
    leader.stop()


def test_Z02_a_start_on_a_full_disk_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("clary.supervisor.leading.write_whole", full)
    with pytest.raises(supervisor.CannotStart, match="No space left on device"):
        Supervisor(settings, print).start()
    assert _running(settings) == {}


def _with_free(free: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says that it has so many bytes free."""
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda path: SimpleNamespace(f_frsize=1, f_blocks=1 << 30, f_bfree=free(), f_bavail=free()),
    )


def test_Z02_a_start_without_room_names_the_place_and_the_bytes_and_works_when_there_is_some(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        _with_free(lambda: 48_576, full)
        with pytest.raises(supervisor.CannotStart) as refused:
            Supervisor(settings, print).start()
    assert str(refused.value) == (
        f"the disk of {settings.data_dir} has 48,576 bytes free, and a start needs 1,048,576: "
        "free at least 1,000,000 bytes there, then try again"
    )
    assert _running(settings) == {}
    assert list(settings.run_dir.glob("*.json")) == []
    leader = Supervisor(settings, print)
    leader.start()
    assert _running(settings).keys() == {"control", "host", "gateway-0"}
    leader.stop()


def test_Z02_a_start_that_finds_no_room_for_a_lock_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: Path, flags: int, *more: int) -> int:
        if str(path).endswith("control.lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *more)

    _with_free(lambda: 0, monkeypatch)
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(supervisor.CannotStart, match="No space left on device"):
        Supervisor(settings, print).start()


def test_Z02_what_ext4_keeps_from_everybody_is_no_room_for_a_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To root a full one says that 4,096 blocks are free."""
    full = SimpleNamespace(f_frsize=4096, f_blocks=1 << 20, f_bfree=4096, f_bavail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(supervisor.CannotStart, match="has 0 bytes free"):
        Supervisor(settings, print).start()


def test_Z02_a_server_full_of_data_starts_in_the_room_kept_back_for_deletions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = settings.objects_dir / "reserve"
    reserve.parent.mkdir(parents=True)
    reserve.write_bytes(b"x")
    _with_free(lambda: 0 if reserve.exists() else 4 << 20, monkeypatch)
    leader = Supervisor(settings, print)
    leader.start()
    assert not reserve.exists()
    reserve.write_bytes(b"x")  # held by the control that runs
    _lose(leader, monkeypatch)
    successor = Supervisor(settings, print)
    assert successor.start()
    assert reserve.exists()
    successor.stop()


def test_Z02_what_ends_on_a_full_disk_is_said_to_lack_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    leader = Supervisor(settings, said.append)
    leader.start()
    _with_free(lambda: 0, monkeypatch)
    processes.signal(_running(settings)["control"], signal.SIGKILL)
    for _ in range(100):
        leader.tend(PATIENCE_S)
        if said:
            break
    assert said[0].startswith("control ended; starting it again (its log: ")
    assert said[0].endswith("and a start needs 1,048,576: free at least 1,048,576 bytes there")
    leader.stop()


def test_Z02_processes_that_still_run_keep_their_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Supervisor(replace(settings, gateways=3), print)
    first.start()
    before = _running(settings)
    _lose(first, monkeypatch)
    said: list[str] = []
    second = Supervisor(replace(settings, gateways=1, account="999999999999"), said.append)
    assert second.start()
    assert (second.settings.gateways, second.settings.account) == (3, settings.account)
    assert _running(settings) == before
    assert [line.partition(" ")[0] for line in said] == ["account", "gateways"]
    second.stop()
    assert _running(settings) == {}


def test_Z02_without_a_process_that_runs_the_new_settings_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Supervisor(replace(settings, gateways=2), print)
    first.start()
    _lose(first, monkeypatch)
    for identity in _running(settings).values():
        processes.signal(identity, signal.SIGKILL)
        os.waitpid(identity.pid, 0)
    assert first.socket is not None
    first.socket.close()
    second = Supervisor(replace(settings, gateways=1), print)
    assert not second.start()
    assert second.settings.gateways == 1
    second.stop()
    assert _running(settings) == {}


def test_Z02_a_process_that_was_started_and_not_yet_recorded_is_adopted_and_not_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = Supervisor(settings, print)
    leader.start()
    before = _running(settings)
    _lose(leader, monkeypatch)
    path = settings.run_dir / "control.pid.json"
    path.unlink()
    # A process records itself once it has come so far: here, while somebody waits for it.
    monkeypatch.setattr(
        "clary.supervisor.names.time.sleep", lambda _: processes.record(path, before["control"])
    )
    successor = Supervisor(settings, print)
    assert successor.start()
    assert _running(settings) == before
    path.unlink()
    successor.stop()
    assert not any(processes.is_alive(identity) for identity in before.values())


@pytest.mark.parametrize("retiring", ["gateway-0", "gateway-1"])
def test_Z02_of_two_gateways_the_one_that_retires_already_is_not_kept(
    retiring: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor was killed after it had asked one to retire: the other one alone accepts connections."""
    leader = Supervisor(settings, print)
    leader.start()
    successor = Watched("gateway-0", "gateway-1")
    leader._launch(successor)
    assert _running(settings).keys() == {"control", "host", "gateway-0", "gateway-1"}
    _lose(leader, monkeypatch)
    asked: list[str] = []

    def state(path: Path) -> door.State:
        number = int(path.stem.removeprefix("gateway-"))
        return door.State(number, 1, 1, 0, 0, 0, is_stopping=f"gateway-{number}" == retiring)

    def stop(path: Path) -> door.State:
        asked.append(path.stem)
        return state(path)

    monkeypatch.setattr(door, "ask_state", state)
    monkeypatch.setattr(door, "ask_to_stop", stop)
    second = Supervisor(settings, print)
    assert second.start()
    assert [watched.name for watched in second._leaving] == [retiring]
    assert asked == [retiring]
    second.stop()
    assert _running(settings) == {}


def test_Z02_a_supervisor_that_only_starts_is_found_by_who_stops_the_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its processes would be ended under its hands, and it would start others."""
    looked: list[ProcessIdentity | None] = []

    def adopt(leader: Supervisor) -> bool:
        looked.append(processes.alive(settings.run_dir / "supervisor.pid.json"))
        return False

    monkeypatch.setattr(Supervisor, "_adopt", adopt)
    leader = Supervisor(settings, print)
    leader.start()
    assert looked == [processes.current()]
    leader.stop()


def test_Z02_a_terminal_that_closes_does_not_ask_for_new_processes(settings: Settings) -> None:
    before = signal.getsignal(signal.SIGHUP)
    leader = Supervisor(settings, print)
    leader.start()
    assert signal.getsignal(signal.SIGHUP) == before
    leader.stop()


def test_Z02_processes_may_open_as_many_files_as_the_machine_allows(settings: Settings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        leader = Supervisor(settings, print)
        leader.start()
        (found, _) = resource.prlimit(_running(settings)["gateway-0"].pid, resource.RLIMIT_NOFILE)
        leader.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == (
        supervisor.MOST_FILES if hard == resource.RLIM_INFINITY else min(supervisor.MOST_FILES, hard)
    )
