"""Scripts of the user's on a real host: what they may do to themselves, and what is said about it."""

import hashlib
import http.client
import io
import json
import socket
import tarfile
import textwrap
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from clary.blobs.base import Attributes, BucketExists
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.domain.instances import Artifact, Failure, InstanceSpec, InstanceStatus
from hosting.harness import HostProcess, rungs_here, running_host, toy_spec, until_phase

MODEL = "def model_fn(model_dir): return 2\n"


@pytest.fixture(scope="module", params=rungs_here())
def host(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with running_host(sandbox=request.param, log_max_bytes=4 << 20) as host:
        yield host


@pytest.fixture(autouse=True)
def empty(host: HostProcess) -> Iterator[None]:
    yield
    host.driver.remove([status.instance_id for status in host.driver.list()])
    host.client.call_raw("logs_clear", {})


def put_archive(host: HostProcess, key: str, members: dict[str, str]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    data = packed.getvalue()
    with closing(FilesystemBlobs(host.settings.objects_dir, SystemClock(), sync=False)) as blobs:
        with suppress(BucketExists):
            blobs.create_bucket("models", "us-east-1")
        with blobs.stage() as staged:
            staged.write(data)
            etag = hashlib.md5(data).hexdigest()
            blobs.put("models", key, staged, etag=etag, attributes=Attributes())


def scripted(
    host: HostProcess, script: str, environment: dict[str, str] | None = None, requirements: str = ""
) -> InstanceSpec:
    """An instance whose model has this script in `code/`."""
    members = {"code/inference.py": textwrap.dedent(script)}
    if requirements:
        members["code/requirements.txt"] = requirements
    put_archive(host, "model.tar.gz", members)
    return toy_spec(
        1,
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/scripted:1",
        artifacts=(Artifact("s3://models/model.tar.gz"),),
        environment=environment or {},
    )


def serve(host: HostProcess, spec: InstanceSpec) -> InstanceStatus:
    host.driver.start(spec)
    return until_phase(host.driver, spec.instance_id, "ready")


def failure_of(host: HostProcess, spec: InstanceSpec) -> Failure:
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "exited")
    assert status.failure is not None
    return status.failure


def ask(status: InstanceStatus, body: object, path: str = "/invocations") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(status.address.removeprefix("unix:"))
    try:
        method = "GET" if path == "/ping" else "POST"
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_H06_a_script_in_the_model_serves_and_the_host_says_so(host: HostProcess) -> None:
    status = serve(host, scripted(host, MODEL + "def predict_fn(data, model): return data * model\n"))
    assert ask(status, [[1, 2]]) == (200, b"[[2.0, 4.0]]")
    assert status.runs_script


def test_H06_a_source_directory_in_s3_serves(host: HostProcess) -> None:
    put_archive(
        host, "sourcedir.tar.gz", {"serve.py": MODEL + "def predict_fn(data, model): return 'mine'\n"}
    )
    environment = {
        "SAGEMAKER_PROGRAM": "serve.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "s3://models/sourcedir.tar.gz",
    }
    status = serve(host, scripted(host, "raise SystemExit", environment))
    assert ask(status, [1]) == (200, b'"mine"')


def test_H06_a_source_directory_that_is_not_there_is_named(host: HostProcess) -> None:
    environment = {"SAGEMAKER_PROGRAM": "serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": "s3://models/none.tar.gz"}
    assert "s3://models/none.tar.gz" in failure_of(host, scripted(host, MODEL, environment)).reason


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import inflection_of_nobody\n", "No module named 'inflection_of_nobody'; put a requirements.txt"),
        ("def model_fn(model_dir):\n    raise KeyError('weights')\n", "KeyError: 'weights'"),
        ("def model_fn(:\n", "SyntaxError"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("import os; os.abort()\n", "ended by SIGABRT"),
        ("import os; os.write(2, b'half a line'); os._exit(4)\n", "exited with code 4"),
        ("x = 1\n", "has no model_fn"),
        (
            "def model_fn(model_dir):\n    with open('/dev/full', 'w') as file: file.write('x')\n",
            "the disk is full",
        ),
    ],
)
def test_H06_a_script_that_does_not_load_says_why_last(host: HostProcess, script: str, words: str) -> None:
    failure = failure_of(host, scripted(host, script))
    assert (failure.code, failure.exit_code) == ("Exited", 1)
    assert failure.log_tail[-1].startswith("model did not load: ")
    assert words in failure.log_tail[-1]


def test_H06_requirements_that_cannot_be_met_are_refused_before_anything_runs(host: HostProcess) -> None:
    failure = failure_of(host, scripted(host, MODEL, requirements="-e .\n"))
    assert failure.code == "EnvironmentFailed"
    assert "'-e .'" in failure.reason


def test_H06_a_handler_that_raises_costs_its_request_and_is_in_the_log(host: HostProcess) -> None:
    spec = scripted(host, MODEL + "def predict_fn(data, model): return {1: 'one'}[int(data[0])]\n")
    status = serve(host, spec)
    refused, body = ask(status, [2])
    assert refused == 500
    assert body.startswith(b"2\nTraceback")
    assert ask(status, [1]) == (200, b'"one"')
    assert "KeyError: 2" in host.log_text(spec)


def test_H06_a_handler_that_prints_without_end_fills_its_own_log_only(host: HostProcess) -> None:
    spec = scripted(
        host,
        MODEL + "def predict_fn(data, model):\n    for _ in range(256): print('z' * 99_999)\n    return 1\n",
    )
    status = serve(host, spec)
    assert ask(status, [1])[0] == 200
    assert ask(status, [1], "/ping")[0] == 200


def test_H06_a_handler_that_forks_answers_once_and_leaves_nothing(host: HostProcess) -> None:
    script = """
        import os, time
        def model_fn(model_dir): return 1
        def predict_fn(data, model):
            if os.fork() == 0 and data[0] == 1:
                time.sleep(3600)
            return data
    """
    status = serve(host, scripted(host, script))
    assert [ask(status, [number]) for number in (1, 2, 1)] == [
        (200, b"[1.0]"),
        (200, b"[2.0]"),
        (200, b"[1.0]"),
    ]
    host.driver.remove([status.instance_id])
    assert not host.directory(status.instance_id).exists()


def test_H06_a_handler_that_hangs_leaves_the_ping_and_is_ended_after_its_time(host: HostProcess) -> None:
    script = """
        import time
        def model_fn(model_dir): return 1
        def predict_fn(data, model):
            while data[0] == 0: time.sleep(60)
            return data
    """
    spec = scripted(
        host, script, {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    )
    status = serve(host, spec)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.connect(status.address.removeprefix("unix:"))
        hanging.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 3\r\n\r\n[0]")
        assert ask(status, None, "/ping")[0] == 200
        hanging.settimeout(60)
        assert hanging.recv(65536).startswith(b"HTTP/1.1 500 ")
    answers = [ask(status, [1])]
    # On a busy machine a good one may take a second too.
    while b"no answer within" in answers[-1][1] and len(answers) < 30:
        answers.append(ask(status, [1]))
    assert answers[-1] == (200, b"[1.0]")


def test_H06_a_handler_that_ends_its_process_costs_its_request(host: HostProcess) -> None:
    script = MODEL + "import os\ndef predict_fn(data, model): return data if data[0] else os._exit(9)\n"
    status = serve(host, scripted(host, script))
    refused, body = ask(status, [0])
    assert refused == 500
    assert b"exited with code 9" in body
    assert ask(status, [1]) == (200, b"[1.0]")


def test_H06_a_full_disk_is_the_handler_s_error(host: HostProcess) -> None:
    script = (
        MODEL + "def predict_fn(data, model):\n    with open('/dev/full', 'w') as file: file.write('x')\n"
    )
    refused, body = ask(serve(host, scripted(host, script)), [1])
    assert refused == 500
    assert b"No space left on device" in body
