"""What passes by itself is waited for, and what a dying supervisor leaves behind is ended."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clary import credentials, supervisor
from clary.cli import CommandError, demo, down, logs, server
from clary.links import processes
from clary.settings import Settings, dump
from clary.wire.client import ClientError, Refused, Unreachable

Start = Callable[[str], processes.ProcessIdentity]


@pytest.fixture
def found(root: Path) -> Settings:
    """The settings of a server on a data directory, where nothing runs yet."""
    found = Settings(data_dir=root / "data", cache_dir=root / "cache", stop_grace_s=5.0)
    for directory in (found.run_dir, found.instances_dir):
        directory.mkdir(parents=True)
    credentials.ensure(found)
    supervisor.settings_path(found).write_text(dump(found))
    return found


@pytest.fixture
def start(found: Settings) -> Iterator[Start]:
    """Starts something that runs under a name until it is told to end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> processes.ProcessIdentity:
        child = subprocess.Popen(["sleep", "600"])
        started.append(child)
        identity = processes.identify(child.pid)
        assert identity is not None
        return processes.record(found.run_dir / f"{name}.pid.json", identity)

    yield start
    for child in started:
        child.kill()
        child.wait()


def asked(found: Settings, **more: object) -> argparse.Namespace:
    return argparse.Namespace(data_dir=str(found.data_dir), **more)


def _leader(*, heeds: bool) -> subprocess.Popen[bytes]:
    """A `clary up` that ends when it is asked, or does not, and ends nothing that it started.

    It says what it does, because what runs in the background of a shell may ignore SIGINT from birth.
    """
    action = "SIG_DFL" if heeds else "SIG_IGN"
    code = f"import signal, time\nsignal.signal(signal.SIGINT, signal.{action})\nprint(flush=True)\ntime.sleep(600)"
    leader = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert leader.stdout is not None
    leader.stdout.readline()
    leader.stdout.close()
    return leader


@pytest.mark.parametrize("heeds", [True, False], ids=["died", "hung"])
def test_the_demo_leaves_no_process_of_a_server_that_did_not_end_them(
    found: Settings, start: Start, heeds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, gateway = start("control"), start("gateway-0")
    leader = _leader(heeds=heeds)
    processes.record(found.run_dir / "supervisor.pid.json", processes.identify(leader.pid))
    if not heeds:
        monkeypatch.setattr(demo, "STOPS_WITHIN_S", 0.0)
    demo._end(leader, found.data_dir)
    assert leader.poll() is not None
    assert not processes.is_alive(control)
    assert not processes.is_alive(gateway)


def test_the_demo_ends_no_server_that_is_not_its_own(found: Settings, start: Start) -> None:
    theirs, control = start("supervisor"), start("control")
    leader = _leader(heeds=True)
    demo._end(leader, found.data_dir)
    assert leader.poll() is not None
    assert processes.is_alive(theirs)
    assert processes.is_alive(control)


def test_Z02_down_ends_what_a_supervisor_leaves_that_dies_when_it_is_asked(
    found: Settings, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    leader, control = start("supervisor"), start("control")
    assert down.run(asked(found)) == 0
    assert not processes.is_alive(leader)
    assert not processes.is_alive(control)
    assert "Stopped." in capsys.readouterr().out


def test_Z02_a_server_whose_gateways_are_about_to_be_started_again_runs(
    found: Settings, start: Start
) -> None:
    with pytest.raises(CommandError, match="does not run now"):
        server.running(asked(found))
    start("supervisor")
    assert server.running(asked(found)).settings == found


def test_U01_the_demo_waits_while_nobody_can_say_how_its_environment_is(
    found: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ["no answer yet: the read failed", "building: a download failed, trying again", "ready"]
    monkeypatch.setattr(demo, "_environment", lambda running: states.pop(0))
    child = subprocess.Popen(["sleep", "600"])
    try:
        running: Any = None
        demo._wait_for_environment(running, child, found.data_dir / "log")
        assert states == []
        states.append("failed: no such package")
        with pytest.raises(CommandError, match="could not be built: failed: no such package"):
            demo._wait_for_environment(running, child, found.data_dir / "log")
    finally:
        child.kill()
        child.wait()
    (found.data_dir / "log").write_text("it crashed")
    states.append("building: xgboost")
    with pytest.raises(CommandError, match="it crashed"):
        demo._wait_for_environment(running, child, found.data_dir / "log")


class Over(Exception):
    """Ends a command that would go on for ever."""


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no answer"),
        Refused(503, "ServiceUnavailable", "control is away"),
        Refused(400, "ResourceNotFoundException", "no such log group"),
    ],
)
def test_L02_following_a_log_goes_on_after_a_restart(
    error: ClientError, found: Settings, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("supervisor")
    looks: list[ClientError | Over] = [error, error, Over()]
    monkeypatch.setattr(logs, "_streams", lambda client, group: _raise(looks.pop(0)))
    monkeypatch.setattr(logs, "FOLLOW_EVERY_S", 0.0)
    with pytest.raises(Over):
        logs.run(asked(found, name="e", follow=True))
    looks[:] = [error]
    with pytest.raises(CommandError):
        logs.run(asked(found, name="e", follow=False))


def _raise(error: Exception) -> Any:
    raise error
