"""`clary env`, `clary run` and the pytest fixtures: a program that knows nothing of Clary, and works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clary.cli import env
from clary.testing.server import RunningServer

# What the SageMaker SDK does for its default bucket and role: STS at its fixed host first.
LIKE_THE_SDK = """
import os
import botocore.session

session = botocore.session.get_session()
region = session.get_config_variable("region")
sts = session.create_client("sts", endpoint_url=f"https://sts.{region}.amazonaws.com")
identity = sts.get_caller_identity()
bucket = f"sagemaker-{region}-{identity['Account']}"
s3 = session.create_client("s3")
try:
    s3.head_bucket(Bucket=bucket)
except s3.exceptions.ClientError as error:
    assert error.response["Error"] == {"Code": "404", "Message": "Not Found"}, error.response
    s3.create_bucket(Bucket=bucket)
s3.put_object(Bucket=bucket, Key="data/x.csv", Body=b"1,2,3")
virtual = session.create_client("s3", endpoint_url=f"https://s3.{region}.amazonaws.com")
print(virtual.get_object(Bucket=bucket, Key="data/x.csv")["Body"].read().decode())
role = session.create_client("iam").get_role(RoleName=identity["Arn"].split("/")[1])
print(bucket, role["Role"]["Arn"])
"""

PLAIN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def clary(
    *arguments: str, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "clary", *arguments],
        capture_output=True,
        text=True,
        env={**PLAIN, **(environ or {})},
        cwd=cwd,
        timeout=120,
        check=False,
    )


def test_U02_a_program_that_asks_fixed_hosts_works_under_clary_run(server: RunningServer) -> None:
    before = {"AWS_PROFILE": "old", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "no_proxy": "amazonaws.com"}
    done = clary(
        "run", "--data-dir", str(server.data_dir), "--", sys.executable, "-c", LIKE_THE_SDK, environ=before
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "1,2,3",
        "sagemaker-us-east-1-123456789012",
        "arn:aws:iam::123456789012:role/SageMakerExecutionRole",
    ]


def test_U02_a_shell_that_evaluated_clary_env_works_as_well(server: RunningServer) -> None:
    environment = f'eval "$({sys.executable} -P -m clary env --data-dir {server.data_dir})"'
    done = subprocess.run(
        ["bash", "-c", f'{environment}; {environment}; exec {sys.executable} -c "$PROGRAM"'],
        capture_output=True,
        text=True,
        env={**PLAIN, "PROGRAM": LIKE_THE_SDK, "AWS_SESSION_TOKEN": "old"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "role/SageMakerExecutionRole" in done.stdout


def test_U05_the_command_s_exit_code_and_arguments_are_its_own(server: RunningServer) -> None:
    on = ("run", "--data-dir", str(server.data_dir), "--")
    done = clary(*on, "sh", "-c", 'echo "$1"; exit 7', "sh", "--data-dir -- x")
    assert (done.returncode, done.stdout) == (7, "--data-dir -- x\n")
    missing = clary(*on, "no-such-command-anywhere")
    assert missing.returncode == 127
    assert "no-such-command-anywhere: command not found" in missing.stderr
    assert clary(*on, "/").returncode == 126
    nothing = clary("run", "--data-dir", str(server.data_dir))
    assert nothing.returncode == 1
    assert "clary run -- python" in nothing.stderr


def test_U02_what_needs_the_proxy_is_refused_by_name_without_a_server(place: Path) -> None:
    for command in (["env"], ["run", "--", "true"]):
        done = clary(command[0], "--data-dir", str(place / "none"), *command[1:])
        assert done.returncode == 1
        assert "clary up" in done.stderr


def test_Z02_a_restart_keeps_token_and_authority(place: Path) -> None:
    with RunningServer(place / "data") as server:
        before = env.full(server.running, {})
        trusted = Path(before["AWS_CA_BUNDLE"]).read_text()
        server.stop()
        server.start()
        after = env.full(server.running, {})
        assert after["HTTPS_PROXY"].split("@")[0] == before["HTTPS_PROXY"].split("@")[0]
        assert Path(after["AWS_CA_BUNDLE"]).read_text() == trusted


USERS_TESTS = """
import os
import botocore.session
import pytest


def client(service, **options):
    return botocore.session.get_session().create_client(service, **options)


@pytest.mark.parametrize("run", [1, 2])
def test_each_begins_with_an_empty_server(clary, run):
    s3 = client("s3")
    assert s3.list_buckets()["Buckets"] == []
    s3.create_bucket(Bucket="mine")
    assert [bucket["Name"] for bucket in clary.client("s3").list_buckets()["Buckets"]] == ["mine"]


def test_fixed_hosts_work_too(clary):
    sts = client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com")
    assert sts.get_caller_identity()["Account"] == "123456789012"


def test_without_the_fixture_nothing_is_set():
    assert "AWS_ENDPOINT_URL" not in os.environ
    assert os.environ["AWS_PROFILE"] == "theirs"
"""


@pytest.mark.slow
def test_U05_users_tests_get_a_server_from_the_fixture(place: Path) -> None:
    (place / "test_users.py").write_text(USERS_TESTS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "clary.testing.plugin", "-p", "no:cacheprovider"),
            str(place / "test_users.py"),
        ],
        capture_output=True,
        text=True,
        env={**PLAIN, "AWS_PROFILE": "theirs", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=place,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
