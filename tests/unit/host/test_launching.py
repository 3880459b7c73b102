"""What an instance finds around it."""

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clary.host import launching
from clary.host.environments import Environment
from clary.host.launching import TELLS_NOBODY, Launcher, _link, barred, instance_environment, rewrite_opt_ml
from clary.links import instances as files
from clary.links.processes import ProcessIdentity
from hosting.harness import toy_spec

DIRECTORY = Path("/data/instances/i-1")


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("/opt/ml", "/data/instances/i-1/opt/ml"),
        ("/opt/ml/model/code", "/data/instances/i-1/opt/ml/model/code"),
        ("file:///opt/ml/model", "file:///data/instances/i-1/opt/ml/model"),
        ("/opt/ml/a:/opt/ml/b", "/data/instances/i-1/opt/ml/a:/data/instances/i-1/opt/ml/b"),
        ('{"dir": "/opt/ml/x"}', '{"dir": "/data/instances/i-1/opt/ml/x"}'),
        ("/opt/mlx", "/opt/mlx"),
        ("/home/opt/ml", "/home/opt/ml"),
        ("none of it", "none of it"),
    ],
)
def test_values_that_name_opt_ml_name_the_instance_s_own(value: str, rewritten: str) -> None:
    assert rewrite_opt_ml({"X": value}, DIRECTORY) == {"X": rewritten}


def test_an_instance_finds_its_own_environment_and_nothing_of_the_server_s() -> None:
    spec = toy_spec(1, environment={"MINE": "1", "HOME": "/opt/ml/home", "PATH": "/extra"})
    found = instance_environment(spec, DIRECTORY, Environment("toy", "k", Path("/env/bin/python")))
    assert found == {
        "MINE": "1",
        "LANG": "C.UTF-8",
        "HOME": "/data/instances/i-1/opt/ml/home",
        "PATH": "/env/bin:/extra",
        "TMPDIR": "/data/instances/i-1/tmp",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        **TELLS_NOBODY,
    }
    telling = toy_spec(1, environment={"DO_NOT_TRACK": "0"})
    found = instance_environment(telling, DIRECTORY, Environment("toy", "k", Path("/env/bin/python")))
    assert (found["DO_NOT_TRACK"], found["ORT_DISABLE_TELEMETRY"]) == ("0", "1")


def test_a_directory_is_barred_unless_it_has_a_minder(tmp_path: Path) -> None:
    with barred(tmp_path) as is_barred, (tmp_path / files.LOCK).open() as lock:
        assert is_barred
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    files.write(tmp_path, files.PROCESS, ProcessIdentity(1, 1))
    with barred(tmp_path) as is_barred:
        assert not is_barred


@pytest.mark.parametrize("begins", [True, False])
def test_a_minder_that_has_just_got_the_lock_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    """It begins the instance within moments, or ends. Who took it for one that never came would lose the instance."""
    with ExitStack() as minder:
        lock = minder.enter_context((tmp_path / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)

        def go_on(_: float) -> None:
            if begins:
                files.write(tmp_path, files.PROCESS, ProcessIdentity(1, 1))
            else:
                minder.close()

        monkeypatch.setattr("time.sleep", go_on)
        with barred(tmp_path) as is_barred:
            assert is_barred is not begins


def test_a_minder_that_never_begins_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "CLAIM_TIMEOUT_S", -1.0)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with barred(tmp_path) as is_barred:
            assert not is_barred


def test_a_link_that_is_right_is_left_alone(tmp_path: Path) -> None:
    """An instance that an earlier host started may be looking through it at this moment."""
    content, place = tmp_path / "content", tmp_path / "i-1/opt/ml/model"
    for folder in (content, tmp_path / "i-1"):
        folder.mkdir()
    _link(content, tmp_path / "i-1", place)
    before = place.lstat().st_ino
    _link(content, tmp_path / "i-1", place)
    assert (place.readlink(), place.lstat().st_ino) == (content, before)
    _link(tmp_path, tmp_path / "i-1", place)
    assert place.readlink() == tmp_path


def test_what_was_removed_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _link(tmp_path, tmp_path / "i-1", tmp_path / "i-1/opt/ml/model")
    assert not (tmp_path / "i-1").exists()


def test_what_an_instance_of_an_earlier_host_reads_is_not_written_anew(tmp_path: Path) -> None:
    minder = ProcessIdentity(1, 1)
    files.write(tmp_path, files.PROCESS, minder)
    nothing: Any = None  # is asked
    assert Launcher.launch(nothing, toy_spec(1), tmp_path, nothing, nothing) == minder
    assert [path.name for path in tmp_path.iterdir()] == [files.PROCESS]
