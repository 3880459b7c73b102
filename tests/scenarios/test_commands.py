"""The `clary` command, as a person types it."""

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clary.cli import COMMANDS
from clary.testing.server import RunningServer
from platform_models import archive, create, csv, deploy, eventually, invoke, regressor, rows, wait_for_status


def clary(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "clary", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def on(server: RunningServer, *arguments: str) -> str:
    done = clary(*arguments, "--data-dir", str(server.data_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_U05_env_gives_a_shell_all_that_boto3_needs(server: RunningServer) -> None:
    script = f'eval "$({sys.executable} -P -m clary env --minimal --data-dir {server.data_dir})"; env'
    found = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "AWS_SESSION_TOKEN": "old",
            "AWS_PROFILE": "old",
        },
        check=True,
    ).stdout
    variables = dict(line.split("=", 1) for line in found.splitlines() if "=" in line)
    assert variables["AWS_ENDPOINT_URL"] == server.url
    assert variables["AWS_ACCESS_KEY_ID"] == server.running.key.access_key_id
    assert variables["AWS_SECRET_ACCESS_KEY"] == server.running.key.secret_access_key
    assert variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert "AWS_SESSION_TOKEN" not in variables
    assert "AWS_PROFILE" not in variables


def test_Z01_why_tells_what_became_of_a_model_that_does_not_load(server: RunningServer) -> None:
    create(server, "broken", archive({"xgboost-model": b"this is no model"}))
    described = wait_for_status(server, "broken", "Failed")
    reason = described["FailureReason"]
    assert reason.startswith(
        "The primary container for production variant AllTraffic did not pass the ping health check"
    )
    assert reason.endswith(f"Run: clary why broken --data-dir {server.data_dir}")
    told = on(server, "why", "broken")
    assert "endpoint broken: Failed" in told
    assert "model did not load" in told
    assert f"clary logs broken --data-dir {server.data_dir}" in told
    assert "model did not load" in on(server, "logs", "broken")
    server.client("sagemaker").delete_endpoint(EndpointName="broken")


def test_Z01_status_and_logs_show_a_healthy_endpoint(server: RunningServer) -> None:
    deploy(server, "healthy", regressor())
    shown = on(server, "status")
    assert all(name in shown for name in ("supervisor", "control", "host", "gateway-0", "gateway-1"))
    line = next(line for line in shown.splitlines() if line.startswith("healthy"))
    assert line.split()[1:3] == ["InService", "1/1"]
    assert "environment xgboost: ready" in shown
    assert on(server, "logs", "healthy").strip()


def test_Z02_commands_without_a_server_say_how_to_start_one(place: Path) -> None:
    for command in ("status", "env", "why", "logs"):
        extra = {"env": ["--minimal"], "why": ["x"], "logs": ["x"]}.get(command, [])
        done = clary(command, *extra, "--data-dir", str(place / "none"))
        assert done.returncode == 1
        assert "clary up" in done.stderr
        assert "Traceback" not in done.stderr


def test_Z02_a_second_server_on_the_same_data_is_refused(place: Path) -> None:
    with RunningServer(place / "data") as server:
        done = clary("up", "--data-dir", str(server.data_dir), "--port", "0")
        assert done.returncode == 1
        assert "already runs" in done.stderr
        taken = clary("up", "--data-dir", str(place / "other"), "--port", str(server.settings.port))
        assert taken.returncode == 1
        assert "Choose another with --port" in taken.stderr


def test_Z02_doctor_names_the_sandbox_and_its_limits() -> None:
    done = clary("doctor")
    assert done.returncode == 0, done.stdout
    assert "rung 1" in done.stdout or "no security boundary" in done.stdout
    assert "shared out by vCPUs" in done.stdout or "slows others down" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = clary(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: clary {command}")


def test_L01_L02_metrics_and_logs_of_an_endpoint_are_read_through_the_aws_apis(server: RunningServer) -> None:
    deploy(server, "counted", regressor())
    for _ in range(17):
        invoke(server, "counted", rows(1))
    runtime, logs = server.client("sagemaker-runtime"), server.client("logs")
    for _ in range(3):
        with pytest.raises(runtime.exceptions.ModelError):
            runtime.invoke_endpoint(EndpointName="counted", ContentType="application/x-unknown", Body=b"x")
    eventually(lambda: _sum(server, "Invocations") == 20, "20 invocations to be counted")
    assert _sum(server, "Invocation4XXErrors") == 3
    assert _sum(server, "InvocationModelErrors") == 3
    assert _sum(server, "Invocation5XXErrors") == 0
    assert _sum(server, "InvocationsPerInstance") == 20
    assert _sum(server, "ModelLatency") > 0

    group = "/aws/sagemaker/Endpoints/counted"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert [stream["logStreamName"].split("/")[0] for stream in streams] == ["AllTraffic"]
    events = logs.get_log_events(
        logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True
    )
    assert events["events"]

    def refusals() -> int:
        return len(logs.filter_log_events(logGroupName=group, filterPattern='"refused: 415"')["events"])

    eventually(lambda: refusals() >= 3, "the refusals in the log")
    assert refusals() == 3


def _sum(server: RunningServer, metric: str) -> float:
    now = datetime.datetime.now(datetime.UTC)
    found = server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointName", "Value": "counted"},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        StartTime=now - datetime.timedelta(minutes=30),
        EndTime=now + datetime.timedelta(minutes=5),
        Period=60,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in found["Datapoints"]))


def test_U05_reset_empties_an_ephemeral_server_and_nothing_else(place: Path) -> None:
    with RunningServer(place / "kept") as kept, pytest.raises(Exception, match="ephemeral"):
        kept.running.client().admin("POST", "/_clary/reset")
    with RunningServer(None, "--ephemeral") as server:
        deploy(server, "gone", regressor())
        server.running.client().admin("POST", "/_clary/reset")
        assert server.client("sagemaker").list_endpoints()["Endpoints"] == []
        assert server.client("sagemaker").list_models()["Models"] == []
        assert server.client("s3").list_buckets()["Buckets"] == []
        assert list(server.settings.instances_dir.iterdir()) == []
        runtime = server.client("sagemaker-runtime")
        with pytest.raises(Exception, match="not found"):
            runtime.invoke_endpoint(EndpointName="gone", Body=csv(rows(1)))
        deploy(server, "gone", regressor())  # the same names are free again
        data_dir = server.data_dir
    assert not data_dir.exists()
