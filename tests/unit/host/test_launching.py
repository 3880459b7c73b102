"""What an instance finds around it."""

import fcntl
from pathlib import Path

import pytest

from clary.host.environments import Environment
from clary.host.launching import TELLS_NOBODY, instance_environment, rewrite_opt_ml, seal
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


def test_a_sealed_directory_starts_nothing_and_one_with_a_minder_cannot_be_sealed(tmp_path: Path) -> None:
    assert seal(tmp_path, files.Exit(1.0, asked=True))
    assert files.read(tmp_path, files.EXIT, files.Exit) == files.Exit(1.0, asked=True)
    started = tmp_path / "started"
    started.mkdir()
    files.write(started, files.PROCESS, ProcessIdentity(1, 1))
    assert not seal(started, files.Exit(1.0))
    locked = tmp_path / "locked"
    locked.mkdir()
    with (locked / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not seal(locked, files.Exit(1.0))
