"""Real instances under a real host: every bad end has its reason, nothing is left behind, and killing the host at
any moment changes nothing.
"""

import fcntl
import hashlib
import http.client
import io
import random
import re
import signal
import socket
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from clary.blobs.base import Attributes, BucketExists
from clary.blobs.filesystem import FilesystemBlobs
from clary.catalog import Catalog
from clary.domain.clock import SystemClock
from clary.domain.instances import Artifact, Failure, InstanceSpec, InstanceStatus
from clary.host import limits
from clary.host.environments import environment_key
from clary.host.groups import member_id
from clary.links import hosts, processes
from clary.links import instances as files
from clary.links.metrics import MetricBatch
from hosting.harness import (
    HostProcess,
    processes_of,
    rungs_here,
    running_host,
    toy_pair,
    toy_spec,
    until,
    until_phase,
)

FRAMEWORKS = Path(__file__).parents[2] / "hosting" / "frameworks"


@pytest.fixture(scope="module", params=rungs_here())
def host(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with running_host(sandbox=request.param) as host:
        yield host


@pytest.fixture(autouse=True)
def empty(host: HostProcess) -> Iterator[None]:
    yield
    host.driver.remove([status.instance_id for status in host.driver.list()])
    host.client.call_raw("logs_clear", {})


def failure_of(host: HostProcess, spec: InstanceSpec) -> Failure:
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "exited")
    assert status.failure is not None
    return status.failure


def call(status: InstanceStatus, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(status.address.removeprefix("unix:"))
    try:
        connection.request("POST", "/invocations", body=body)
        return connection.getresponse().read()
    finally:
        connection.close()


def put_archive(host: HostProcess, key: str, members: dict[str, bytes]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = packed.getvalue()
    with closing(FilesystemBlobs(host.settings.objects_dir, SystemClock(), sync=False)) as blobs:
        with suppress(BucketExists):
            blobs.create_bucket("models", "us-east-1")
        with blobs.stage() as staged:
            staged.write(data)
            etag = hashlib.md5(data).hexdigest()
            blobs.put("models", key, staged, etag=etag, attributes=Attributes())


@contextmanager
def held_build(host: HostProcess, name: str) -> Iterator[None]:
    """No environment of that framework gets built meanwhile, as if another host were at it."""
    manifest = Catalog.load(FRAMEWORKS).named(name)
    assert manifest is not None
    root = host.settings.cache_dir / "environments"
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}-{environment_key(manifest)[:16]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sleepers_named_in(log: str) -> list[str]:
    return re.findall(r"sleeper ([\d.]+)", log)


def is_sleeping(seconds: str) -> bool:
    """Looked for by its argument: what an instance says of pids holds in its own namespace only."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
    return False


@pytest.mark.parametrize(
    ("do", "code", "exit_code", "signal_number", "said"),
    [
        ("exit:7", "Exited", 7, None, "about to end"),
        ("exit:0", "Exited", 0, None, "about to end"),
        ("raise:no luck", "Exited", 1, None, "RuntimeError: no luck"),
        ("import:no_such_module", "Exited", 1, None, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("signal:11", "Killed", None, signal.SIGSEGV, "instance started"),
        ("signal:9", "Killed", None, signal.SIGKILL, "instance started"),
    ],
)
def test_H01_an_instance_that_ends_says_how_and_shows_its_last_lines(
    host: HostProcess, do: str, code: str, exit_code: int | None, signal_number: int | None, said: str
) -> None:
    failure = failure_of(host, toy_spec(1, do))
    assert (failure.code, failure.exit_code, failure.signal) == (code, exit_code, signal_number)
    assert any(said in line for line in failure.log_tail)
    if signal_number is not None:
        assert signal.Signals(signal_number).name in failure.reason
    assert failure.next_command == "clary logs toys"


def test_an_instance_that_never_listens_fails_with_what_the_last_ping_saw(host: HostProcess) -> None:
    for number, within_s in enumerate((0.3, 5.0, 60.0), 1):
        failure = failure_of(host, toy_spec(number, "mute", startup_timeout_s=within_s))
        assert failure.code == "PingTimeout"
        assert "it does not listen yet" in failure.reason
        assert processes_of(host.directory(toy_spec(number).instance_id)) == []
        if "never going to listen" in failure.log_tail:  # else it had no turn yet, on a busy machine
            break
    assert "never going to listen" in failure.log_tail


def test_an_instance_over_its_memory_is_ended_and_told_so(host: HostProcess) -> None:
    failure = failure_of(host, toy_spec(1, "eat", memory_bytes=200 << 20))
    assert failure.code == "OutOfMemory"
    assert failure.memory_limit_bytes == 200 << 20
    assert failure.memory_peak_bytes is not None
    assert failure.memory_peak_bytes > 200 << 20
    assert "200 MiB" in failure.reason


@pytest.mark.parametrize("file", ["", "unnamed"])
def test_H08_an_instance_over_its_disk_is_ended_told_so_and_cleared_away(
    host: HostProcess, file: str
) -> None:
    spec = toy_spec(1, f"fill:{file}", volume_bytes=32 << 20)
    failure = failure_of(host, spec)
    assert failure.code == "OutOfDisk"
    assert "it has 32 MiB (VolumeSizeInGB)" in failure.reason
    assert [
        path for path in host.directory(spec.instance_id).rglob("*") if path.stat().st_size > 1 << 20
    ] == []


def test_binary_output_is_made_printable(host: HostProcess) -> None:
    failure = failure_of(host, toy_spec(1, "binary"))
    assert failure.log_tail
    assert all(character.isprintable() for line in failure.log_tail for character in line.replace("\t", ""))


def test_a_flood_of_output_keeps_its_end(host: HostProcess) -> None:
    failure = failure_of(host, toy_spec(1, "flood:64"))
    assert failure.log_tail[-1].startswith("yyyy")
    assert len("".join(failure.log_tail)) <= 20_000


def test_an_image_nobody_answers_for_is_refused_with_what_there_is(host: HostProcess) -> None:
    failure = failure_of(host, toy_spec(1, image="somebody/own:1"))
    assert failure.code == "ImageNotSupported"
    assert "somebody/own:1" in failure.reason
    assert "toy" in failure.reason


def test_what_an_instance_forked_ends_with_it(host: HostProcess) -> None:
    spec = toy_spec(1, "family")
    assert failure_of(host, spec).exit_code == 5
    children = sleepers_named_in(host.log_text(spec))
    assert len(children) == 3
    assert not any(is_sleeping(each) for each in children)


def test_a_removed_instance_leaves_no_process_no_directory_no_socket(host: HostProcess) -> None:
    spec = toy_spec(1, "family:serve")
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    children = sleepers_named_in(host.log_text(spec))
    directory = host.directory(spec.instance_id)
    assert len(processes_of(directory)) >= 2
    host.driver.remove([spec.instance_id])
    assert not directory.exists()
    assert processes_of(directory) == []
    assert not any(is_sleeping(each) for each in children)
    assert "serving" in host.log_text(spec)


def test_a_killed_minder_takes_its_instance_along(host: HostProcess) -> None:
    spec = toy_spec(1)
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    directory = host.directory(spec.instance_id)
    processes.signal(files.minder_of(directory), signal.SIGKILL)
    status = until_phase(host.driver, spec.instance_id, "exited")
    assert status.failure is not None
    assert status.failure.code == "Killed"
    assert processes_of(directory) == []


def test_an_instance_that_turns_unwell_is_unhealthy(host: HostProcess) -> None:
    spec = toy_spec(1)
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "ready")
    assert call(status, b"be unwell") == b"be unwell"
    assert "HTTP 503" in until_phase(host.driver, spec.instance_id, "unhealthy").detail


def test_a_variable_that_counts_at_import_gets_a_process_of_its_own(host: HostProcess) -> None:
    spec = toy_spec(1, environment={"TOY_DO": "serve", "TOY_IMPORT": "fresh"})
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    assert "import='fresh'" in host.log_text(spec)


def test_a_minder_ends_its_instance_without_a_host(host: HostProcess) -> None:
    spec = toy_spec(1, "family:serve")
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    host.kill()
    directory = host.directory(spec.instance_id)
    minder = files.minder_of(directory)
    assert processes.signal(minder, signal.SIGTERM)
    assert minder is not None
    assert processes.wait_gone([minder], 60) == []
    assert processes_of(directory) == []
    host.start()
    assert until_phase(host.driver, spec.instance_id, "exited").failure is None


def test_instances_outlive_a_terminated_host_and_are_taken_up(host: HostProcess) -> None:
    spec = toy_spec(1)
    host.driver.start(spec)
    before = until_phase(host.driver, spec.instance_id, "ready")
    minder = files.minder_of(host.directory(spec.instance_id))
    host.terminate()
    assert call(before, b"still here") == b"still here"
    host.start()
    assert until_phase(host.driver, spec.instance_id, "ready").address == before.address
    host.driver.start(spec)
    assert files.minder_of(host.directory(spec.instance_id)) == minder


def test_how_an_instance_ended_while_the_host_was_dead_is_known(host: HostProcess) -> None:
    spec = toy_spec(1)
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    host.kill()
    minder = files.minder_of(host.directory(spec.instance_id))
    assert minder is not None
    instance = limits.descendants(minder.pid)[-1]
    processes.signal(processes.identify(instance), signal.SIGSEGV)
    processes.wait_gone([minder], 60)
    host.start()
    status = until_phase(host.driver, spec.instance_id, "exited")
    assert status.failure is not None
    assert status.failure.signal == signal.SIGSEGV


def test_C01_an_instance_of_two_containers_is_found_again_and_ends_with_either(host: HostProcess) -> None:
    spec = toy_pair(1)
    host.driver.start(spec)
    before = until_phase(host.driver, spec.instance_id, "ready")
    host.kill()
    for number, address in enumerate(before.addresses):
        assert call(replace(before, address=address), b"still here") == b"still here", number
    host.start()
    host.driver.start(spec)
    after = until_phase(host.driver, spec.instance_id, "ready")
    assert (after.addresses, after.ready_at) == (before.addresses, before.ready_at)
    assert [status.instance_id for status in host.driver.list()] == [spec.instance_id]
    minder = files.minder_of(host.directory(member_id(spec.instance_id, 2)))
    assert minder is not None
    processes.signal(processes.identify(limits.descendants(minder.pid)[-1]), signal.SIGSEGV)
    ended = until_phase(host.driver, spec.instance_id, "exited")
    assert ended.failure is not None
    assert (ended.failure.container, ended.failure.signal) == ("second", signal.SIGSEGV)
    assert call(before, b"the other goes on") == b"the other goes on"


@pytest.mark.parametrize("end", ["kill", "terminate"])
@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_a_host_ended_at_any_moment_of_a_start_converges_to_one_instance(
    host: HostProcess, after_s: float, end: str
) -> None:
    """The moments are spread over the start; whichever is hit, the outcome must be the same."""
    specs = [toy_spec(number) for number in range(1, 5)]
    for spec in specs:
        host.driver.start(spec)
    host.driver.wait(host.driver.wait(0, 0), after_s)
    host.kill() if end == "kill" else host.terminate()
    host.start()
    for spec in specs:
        host.driver.start(spec)
    until(host.driver, [spec.instance_id for spec in specs], lambda status: status.phase == "ready")
    for spec in specs:
        assert len(processes_of(host.directory(spec.instance_id))) == host.processes
    assert host.log_text(specs[0]).count("instance started") == len(specs)


def test_H02_a_host_killed_while_it_builds_an_environment_builds_it_again(host: HostProcess) -> None:
    spec = toy_spec(1, image="toyvenv:1")
    with held_build(host, "toyvenv"):
        host.driver.start(spec)
        until(host.driver, [spec.instance_id], lambda status: "waiting for the lock" in status.detail)
        assert host.driver.inspect([spec.instance_id])[spec.instance_id].phase == "preparing"
        host.kill()
    host.start()
    until_phase(host.driver, spec.instance_id, "ready")
    assert len(processes_of(host.directory(spec.instance_id))) == host.processes


def test_an_instance_stopped_while_its_environment_is_built_ends_at_once(host: HostProcess) -> None:
    """Also for removal, and a new start of the same id is not disturbed by what still waits."""
    for path in (host.settings.cache_dir / "environments").glob("*/.ready"):
        path.unlink()
    spec = toy_spec(1, image="toyvenv:1")
    with held_build(host, "toyvenv"):
        host.driver.start(spec)
        host.driver.stop([spec.instance_id], grace_s=30)
        assert until_phase(host.driver, spec.instance_id, "exited").failure is None
        host.driver.remove([spec.instance_id])
        host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    assert len(processes_of(host.directory(spec.instance_id))) == host.processes


def test_a_host_killed_while_it_fetches_fetches_again(host: HostProcess) -> None:
    put_archive(host, "model.tar.gz", {"model": random.Random(1).randbytes(1 << 20) * 64})
    spec = toy_spec(1, artifacts=(Artifact("s3://models/model.tar.gz"),))
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "fetching", "ready")
    host.kill()
    host.start()
    until_phase(host.driver, spec.instance_id, "ready")
    assert (host.directory(spec.instance_id) / "opt/ml/model/model").stat().st_size == 64 << 20
    assert [path.name for path in host.settings.artifacts_dir.glob(".part-*")] == []


def test_H01_a_hostile_archive_fails_the_instance_and_names_the_member(host: HostProcess) -> None:
    put_archive(host, "evil.tar.gz", {"../../evil": b"x"})
    failure = failure_of(host, toy_spec(1, artifacts=(Artifact("s3://models/evil.tar.gz"),)))
    assert failure.code == "ArtifactInvalid"
    assert "../../evil" in failure.reason
    assert list(host.settings.data_dir.rglob("evil")) == []


def test_a_host_killed_while_it_stops_an_instance_still_stops_it(host: HostProcess) -> None:
    spec = toy_spec(1, "stubborn")
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    host.driver.stop([spec.instance_id], grace_s=0.2)
    host.kill()
    host.start()
    assert until_phase(host.driver, spec.instance_id, "exited").failure is None


def test_stop_all_ends_everything(host: HostProcess) -> None:
    specs = [toy_spec(number) for number in range(1, 4)]
    for spec in specs:
        host.driver.start(spec)
    assert host.client.call("stop_all", hosts.StopAll(grace_s=20), int) == 3
    assert {status.phase for status in host.driver.list()} == {"exited"}


def test_half_made_directories_count_for_nothing(host: HostProcess) -> None:
    host.kill()
    (host.settings.instances_dir / "i-unfinished").mkdir()
    (host.settings.instances_dir / ".new-i-1").mkdir()
    host.start()
    assert list(host.settings.instances_dir.iterdir()) == []
    assert host.driver.list() == []


def test_the_link_answers_logs_and_refuses_what_it_does_not_know(host: HostProcess) -> None:
    spec = toy_spec(1)
    host.driver.start(spec)
    until_phase(host.driver, spec.instance_id, "ready")
    log = spec.log
    names = {"account": log.account, "region": log.region, "group": log.group, "stream": log.stream}
    page = host.client.call_raw("logs_read", names)
    assert page["events"][0]["message"].startswith("instance started")
    with pytest.raises(hosts.HostError, match="no operation"):
        host.client.call_raw("no_such_operation", {})
    with pytest.raises(hosts.HostError):
        host.client.call_raw("start", {"spec": 1})
    status = host.client.call("status", hosts.GetStatus(), hosts.HostStatus)
    assert status.zygotes == ("toy",)
    assert {each.name: each.state for each in status.environments}["toy"] == "ready"


def test_L01_utilisation_of_instances_is_measured() -> None:
    with running_host(telemetry_interval_s=0.1) as host:
        spec = toy_spec(1)
        host.driver.start(spec)
        until_phase(host.driver, spec.instance_id, "ready")
        batches: list[MetricBatch] = []
        while not batches:
            batches = host.client.call("take_metrics", hosts.TakeMetrics("", 0), list[MetricBatch])
            host.driver.wait(host.driver.wait(-1, 0), 0.1)
        points = {point.name: point for point in batches[0].points}
        assert points.keys() == {"CPUUtilization", "MemoryUtilization", "DiskUtilization"}
        assert dict(points["MemoryUtilization"].dimensions) == {
            "EndpointName": "toys",
            "VariantName": "AllTraffic",
        }
        assert 0 < points["MemoryUtilization"].sum < 100
        last = batches[-1]
        left = host.client.call(
            "take_metrics", hosts.TakeMetrics(last.source, last.sequence), list[MetricBatch]
        )
        assert all(batch.sequence > last.sequence for batch in left)
