"""What an instance finds around it."""

from pathlib import Path
from typing import Any

import pytest

from clary.host.environments import Environment
from clary.host.launching import TELLS_NOBODY, Launcher, _link, instance_environment, rewrite_opt_ml, withdraw
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


def test_what_is_withdrawn_has_nothing_to_begin_with_and_tells_who_has_begun(tmp_path: Path) -> None:
    files.write(tmp_path, files.LAUNCH, files.Launch("m:f", {}))
    assert withdraw(tmp_path) is None
    assert not (tmp_path / files.LAUNCH).exists()
    files.write(tmp_path, files.PROCESS, ProcessIdentity(1, 1))
    assert withdraw(tmp_path) == ProcessIdentity(1, 1)


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
