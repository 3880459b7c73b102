"""Images of users' own, on a real container engine: the contract inside, and what can go wrong with one."""

import asyncio
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clary.blobs.base import Attributes
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.domain.images import OwnImage
from clary.domain.instances import Artifact, Failure, InstanceSpec, InstanceStatus, ModelSource
from clary.host.engine import notes
from clary.host.engine.creation import Abilities, Placing, creation
from clary.host.engine.runner import Plan
from clary.host.limits import descendants
from clary.host.probing import ping
from clary.links import hosts, instances
from engines.harness import IMAGE, TestEngine, container_spec, empty_root
from hosting.harness import PATIENCE_S, HostProcess, running_host, until_phase


@pytest.fixture(scope="module")
def shared(engine: TestEngine) -> Iterator[HostProcess]:
    with running_host(container_engine=str(engine.socket), log_max_bytes=64 << 20) as host:
        yield host


@pytest.fixture
def host(shared: HostProcess, engine: TestEngine) -> Iterator[HostProcess]:
    yield shared
    while OPEN:
        OPEN.pop().close()
    shared.resume()
    shared.driver.remove([status.instance_id for status in shared.driver.list()])
    engine.until_empty()


OF_AWS = "111122223333.dkr.ecr.us-east-1.amazonaws.com/mine:1"
OPEN: list[http.client.HTTPConnection] = []


class Instance:
    """One that is ready, to be called at its address."""

    def __init__(self, status: InstanceStatus) -> None:
        self._connection = http.client.HTTPConnection("instance", timeout=PATIENCE_S)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(PATIENCE_S)
        self._connection.sock.connect(status.address.removeprefix("unix:"))
        OPEN.append(self._connection)

    def invoke(self, body: bytes, content_type: str = "text/csv", path: str = "/invocations") -> bytes:
        self._connection.request("POST", path, body, {"Content-Type": content_type})
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def tell(self, **what: object) -> Any:
        """Has the program in the container do something (`engines/program.py`)."""
        return json.loads(self.invoke(json.dumps(what).encode(), "application/json"))


def started(host: HostProcess, spec: InstanceSpec) -> Instance:
    host.driver.start(spec)
    return Instance(until_phase(host.driver, spec.instance_id, "ready"))


def failure(host: HostProcess, spec: InstanceSpec) -> Failure:
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "exited")
    assert status.failure is not None
    return status.failure


def test_H04_a_container_finds_what_the_contract_promises(host: HostProcess, engine: TestEngine) -> None:
    spec = container_spec(
        1,
        environment={"DO": "serve", "MINE": "1", "SAGEMAKER_BIND_TO_PORT": "8093"},
        vcpus=1,
        memory_bytes=256 << 20,
    )
    directory = host.directory(spec.instance_id)
    container = started(host, spec)
    assert container.invoke(b"1,2") == b"1,2"
    assert container.tell(environ="MINE") == "1"
    assert container.tell(environ="AWS_REGION") == "us-east-1"
    assert container.tell(write="/opt/ml/output/data/x") == 1  # the rest of /opt/ml may be written
    note = notes.read(directory)
    assert note is not None
    limits = engine.client.inspect(note.container)["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (256 << 20, 10**9, 4096)
    assert "no-new-privileges" in str(limits["SecurityOpt"])
    host.until_logged(spec, "DO serve")


def test_H04_the_model_is_there_and_may_not_be_changed(host: HostProcess) -> None:
    blobs = FilesystemBlobs(host.settings.objects_dir, SystemClock())
    blobs.create_bucket("models", "us-east-1")
    with blobs.stage() as staged:
        staged.write(b"weights")
        blobs.put("models", "m/weights.txt", staged, etag="e", attributes=Attributes())
    blobs.close()
    spec = container_spec(1, artifacts=(Artifact("s3://models/m/", kind="prefix"),))
    container = started(host, spec)
    assert container.tell(read="/opt/ml/model/weights.txt") == "weights"
    assert "Read-only" in container.tell(write="/opt/ml/model/weights.txt")


def test_M01_a_multi_model_container_of_ones_own_is_told_to_load_models(host: HostProcess) -> None:
    blobs = FilesystemBlobs(host.settings.objects_dir, SystemClock())
    blobs.create_bucket("many", "us-east-1")
    for name in ("a", "b"):
        with blobs.stage() as staged:
            staged.write(archive({"weights.txt": f"weights of {name}".encode()}))
            blobs.put("many", f"m/{name}.tar.gz", staged, etag=name, attributes=Attributes())
    blobs.close()
    spec = container_spec(1, network_isolated=True, models=ModelSource("s3://many/m/"))
    container = started(host, spec)
    for name in ("a", "b"):
        wanted = hosts.LoadModel(spec.instance_id, f"{name}.tar.gz")
        loaded = host.client.call("load_model", wanted, hosts.LoadedModel)
        assert container.invoke(b"", path=f"/models/{loaded.name}/invoke") == f"weights of {name}".encode()
    assert container.tell(environ="SAGEMAKER_MULTI_MODEL") == "true"


def archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_H04_isolated_there_is_no_way_out_and_requests_come_in(host: HostProcess) -> None:
    container = started(host, container_spec(1, network_isolated=True))
    assert container.invoke(b"1") == b"1"
    assert "refused" in container.tell(fetch="http://10.88.0.1:80/")
    assert "unreachable" in container.tell(fetch="http://192.0.2.1/")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"image": "localhost:1/no/such:1"}, "ImageNotSupported", "could not be pulled"),
        ({"image": OF_AWS}, "ImageNotSupported", "nothing is pulled from AWS"),
        ({"image": "empty"}, "StartFailed", "needs a program `serve` on its PATH"),
        ({"environment": {"SAGEMAKER_BIND_TO_PORT": "http"}}, "StartFailed", "is no port"),
        ({"environment": {"DO": "exit:5"}}, "Exited", "exited with code 5"),
        (
            {"environment": {"DO": "port:9999"}, "startup_timeout_s": 0.5},
            "PingTimeout",
            "nothing listens on port 8080 in the container",
        ),
        (
            {"environment": {"DO": "memory"}, "memory_bytes": 64 << 20},
            "OutOfMemory",
            "reached the memory of ml.m5.large (64 MiB)",
        ),
        (
            {"environment": {"DO": "fill"}, "volume_bytes": 32 << 20},
            "OutOfDisk",
            "it has 32 MiB (VolumeSizeInGB)",
        ),
    ],
    ids=["cannot be pulled", "of AWS", "no serve", "no port", "exits", "another port", "out of memory", "out of disk"],
)  # fmt: skip
def test_H04_what_is_wrong_with_an_image_is_said(
    host: HostProcess, engine: TestEngine, changes: dict[str, Any], code: str, words: str
) -> None:
    engine.make_image("empty", empty_root())
    found = failure(host, container_spec(1, network_isolated=True, **changes))
    for number, within_s in ((2, 10.0), (3, 120.0)):
        if found.code != code or code != "PingTimeout" or words in found.reason:
            break
        # On a busy machine nobody was asked yet.
        changes = {**changes, "startup_timeout_s": within_s}
        found = failure(host, container_spec(number, network_isolated=True, **changes))
    assert (found.code, words in found.reason) == (code, True), found.reason
    assert found.next_command


def test_a_container_that_somebody_removes_is_said_to_have_been_removed(
    host: HostProcess, engine: TestEngine
) -> None:
    """An engine may tell the end just before it has removed it: then the exit code is what there is to say."""
    for number in range(1, 11):
        spec = container_spec(number, network_isolated=True)
        started(host, spec)
        [name] = engine.containers()
        engine.client.remove(name.lstrip("/"))
        found = until_phase(host.driver, spec.instance_id, "exited").failure
        assert found is not None
        told = (found.code, "removed from outside" in found.reason)
        if found.code != "Exited":
            break
        assert "exited with code" in found.reason
        engine.until_empty()
    assert told == ("Killed", True)


def test_H04_whatever_a_container_prints_is_in_its_log(host: HostProcess) -> None:
    spec = container_spec(1, "print:20000", network_isolated=True)
    started(host, spec)
    host.until_logged(spec, "printed all")
    assert host.log_text(spec).count("x" * 1023 + "\n") == 20000


def test_a_container_that_ignores_sigterm_ends_in_time(host: HostProcess) -> None:
    spec = container_spec(1, "stubborn", network_isolated=True)
    started(host, spec)
    host.driver.stop([spec.instance_id], grace_s=1)
    assert until_phase(host.driver, spec.instance_id, "exited").failure is None


def test_an_engine_that_goes_away_takes_no_container_along(host: HostProcess, engine: TestEngine) -> None:
    spec = container_spec(1, network_isolated=True)
    container = started(host, spec)
    engine.stop(signal.SIGKILL)
    try:
        assert container.invoke(b"1") == b"1"
        status = host.client.call("status", hosts.GetStatus(), hosts.HostStatus)
        assert "none answers at" in status.engine
        assert "needs a container engine" in failure(host, container_spec(2)).reason
    finally:
        engine.start()
    assert container.invoke(b"1") == b"1"
    assert host.driver.inspect([spec.instance_id])[spec.instance_id].phase == "ready"


def test_a_host_that_comes_back_finds_its_containers(host: HostProcess) -> None:
    spec = container_spec(1, network_isolated=True)
    container = started(host, spec)
    host.kill()
    assert container.invoke(b"1") == b"1"
    host.start()
    assert until_phase(host.driver, spec.instance_id, "ready").failure is None
    host.driver.stop([spec.instance_id], grace_s=30)
    assert until_phase(host.driver, spec.instance_id, "exited").failure is None


@pytest.mark.parametrize("whose", ["runner", "minder, with no host"])
def test_what_a_killed_process_leaves_with_the_engine_is_removed(
    host: HostProcess, engine: TestEngine, whose: str
) -> None:
    spec = container_spec(1, network_isolated=True)
    container = started(host, spec)
    minder = instances.minder_of(host.directory(spec.instance_id))
    assert minder is not None
    if whose == "runner":
        [runner, *_] = descendants(minder.pid)
        os.kill(runner, signal.SIGKILL)
    else:
        host.kill()
        os.kill(minder.pid, signal.SIGKILL)
        host.start()
    assert until_phase(host.driver, spec.instance_id, "exited").failure is not None
    engine.until_empty()
    with pytest.raises((OSError, http.client.HTTPException)):
        container.invoke(b"1")


def test_an_image_is_looked_up_for_those_who_make_models(host: HostProcess, engine: TestEngine) -> None:
    def look_up(image: str) -> OwnImage:
        return host.client.call("look_up_image", hosts.LookUpImage(image), OwnImage)

    engine.make_image(
        "labelled", empty_root(), "LABEL com.amazonaws.sagemaker.capabilities.multi-models=true"
    )
    assert "@sha256:" in look_up(IMAGE).resolved
    assert look_up("labelled").labels == {"com.amazonaws.sagemaker.capabilities.multi-models": "true"}
    assert look_up("registry.example.com/unknown:1") == OwnImage()  # pulled when it is started
    assert "nothing is pulled from AWS" in look_up(OF_AWS).refusal


def test_the_engine_publishes_the_port_where_its_networks_cannot_be_entered(
    engine: TestEngine, place: Path
) -> None:
    """As for a user who is in Docker's group and not root: the runner alone, told so."""
    spec = container_spec(1)
    placing = Placing("tests", (), {"DO": "serve"}, 100, "bridge", published=True)
    plan = Plan(
        engine=str(engine.socket),
        name="published",
        creation=creation(spec, IMAGE, placing, Abilities()),
        directory=str(place),
        port=8080,
        published=True,
        platform="",
    )
    command = f"import sys; from clary.host.engine.runner import main; sys.exit(main({asdict(plan)!r}))"
    runner = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL)
    try:
        status = InstanceStatus(spec.instance_id, "ready", address=f"unix:{place}/http.sock")
        deadline = time.monotonic() + PATIENCE_S
        while not asyncio.run(ping(str(place / "http.sock"), 5)).is_well:
            assert runner.poll() is None
            assert time.monotonic() < deadline
        assert Instance(status).invoke(b"1") == b"1"
        OPEN.pop().close()
    finally:
        runner.terminate()
        assert runner.wait(PATIENCE_S) == 0
    engine.until_empty()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, for the socket below it."""
    with tempfile.TemporaryDirectory(prefix="cr-") as found:
        yield Path(found)
