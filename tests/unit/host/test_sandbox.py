"""Sandbox rung 1 from inside: hostile code in an instance tries what it should not be able to do."""

import http.client
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from clary.catalog import Catalog
from clary.domain.clock import SystemClock
from clary.domain.instances import InstanceSpec
from clary.host import failures, limits
from clary.host.environments import Environment
from clary.host.records import erase
from clary.host.rungs import Rung, choose
from clary.host.uids import Uids
from clary.host.zygotes import Zygotes
from clary.links import hosts, processes
from clary.links import instances as files
from hosting.harness import HostProcess, processes_of, rungs_here, running_host, toy_spec, until_phase

pytestmark = pytest.mark.skipif(
    "1" not in rungs_here(), reason=f"sandbox rung 1 does not work here: {choose('auto', 200_000).why}"
)

FRAMEWORKS = Path(__file__).parents[2] / "hosting" / "frameworks"
VICTIM, ATTACKER = toy_spec(1), toy_spec(2)


@pytest.fixture(scope="module")
def host() -> Iterator[HostProcess]:
    """With a victim and an attacker side by side; both go on for all tests."""
    with running_host(sandbox="1") as host:
        for spec in (VICTIM, ATTACKER):
            start(host, spec)
        host.settings.keys_dir.mkdir(mode=0o700)
        (host.settings.keys_dir / "credentials.json").write_text('{"root": "a secret"}')
        (host.settings.data_dir / "store.db").write_text("the store")
        yield host


def start(host: HostProcess, spec: InstanceSpec) -> None:
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "ready", "exited")
    assert status.phase == "ready", status


def attack(host: HostProcess, name: str, argument: object = "", spec: InstanceSpec = ATTACKER) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(host.directory(spec.instance_id) / "http.sock"))
    try:
        connection.request("POST", "/invocations", body=f"attack {name} {argument}".encode())
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def instance_of(host: HostProcess, spec: InstanceSpec) -> int:
    minder = files.minder_of(host.directory(spec.instance_id))
    assert minder is not None
    return limits.descendants(minder.pid)[-1]


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def is_sleeping(seconds: str) -> bool:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
    return False


def test_H08_the_root_key_the_store_and_the_data_directory_are_not_there(host: HostProcess) -> None:
    data = host.settings.data_dir
    for path in (data / "keys/credentials.json", data / "store.db"):
        assert path.exists()
        assert attack(host, "read", path).startswith("refused FileNotFoundError")
    assert attack(host, "list", data).startswith("refused")
    assert attack(host, "list", host.settings.run_dir).startswith("refused")


def test_H08_another_instance_s_files_and_sockets_are_not_there(host: HostProcess) -> None:
    other = host.directory(VICTIM.instance_id)
    assert attack(host, "list", other).startswith("refused")
    for name in ("spec.json", "launch.json", "opt/ml/model", "tmp"):
        assert attack(host, "read", other / name).startswith("refused FileNotFoundError")
    for path in (other / "http.sock", host.settings.host_socket):
        assert path.exists()
        assert attack(host, "connect-unix", path).startswith("refused FileNotFoundError")


def test_H08_only_its_own_processes_are_seen(host: HostProcess) -> None:
    assert attack(host, "processes") == "got 1 2"
    assert attack(host, "read", f"/proc/{instance_of(host, VICTIM)}/environ").startswith(
        "refused FileNotFound"
    )
    for name in ("environ", "mem", "maps"):
        assert attack(host, "read", f"/proc/1/{name}").startswith("refused PermissionError")
    assert attack(host, "list", "/proc/1/root").startswith("refused PermissionError")


def test_H08_neighbours_and_the_host_cannot_be_killed_or_traced(host: HostProcess) -> None:
    before = processes_of(host.directory(VICTIM.instance_id))
    for pid in (*before, os.getpid()):
        assert attack(host, "kill", pid).startswith("refused ProcessLookupError")
        assert attack(host, "trace", pid).startswith("refused ProcessLookupError")
    assert attack(host, "trace", 1).startswith("refused PermissionError")
    with suppress(OSError, http.client.HTTPException):
        attack(host, "kill-everybody")
    assert processes_of(host.directory(VICTIM.instance_id)) == before
    assert attack(host, "identity", spec=VICTIM).startswith("got")


def test_H08_nothing_outside_can_be_written(host: HostProcess) -> None:
    for path in (
        "/new",
        "/usr/new",
        "/etc/new",
        "/etc/hosts",
        "/etc/passwd",
        "/dev/new",
        "/proc/sys/kernel/hostname",
    ):
        assert attack(host, "write", path).startswith("refused"), path
    here = Path(files.__file__).parents[1] / "runtimes" / "new"
    assert attack(host, "write", here).startswith("refused")
    assert not here.exists()


def test_H08_its_own_places_can_be_written_and_lie_in_its_directory(host: HostProcess) -> None:
    own = host.directory(ATTACKER.instance_id)
    assert attack(host, "write", "/tmp/mine") == "got /tmp/mine"
    assert attack(host, "write", "/opt/ml/mine") == "got /opt/ml/mine"
    assert attack(host, "write", "/dev/shm/mine") == "got /dev/shm/mine"
    assert (own / "tmp/mine").read_text() == (own / "ml/mine").read_text() == "written by an instance"
    assert not (host.directory(VICTIM.instance_id) / "tmp/mine").exists()
    assert not Path("/tmp/mine").exists()


def test_H08_no_privilege_is_left_and_none_can_be_had(host: HostProcess) -> None:
    identity = attack(host, "identity")
    assert identity.startswith(f"got {(host.directory(ATTACKER.instance_id) / 'tmp').stat().st_uid} 2 ")
    for name, argument in (
        ("mount", "/tmp"), ("namespaces", ""), ("become-root", ""), ("leave-root", ""), ("device", "/tmp/disk"),
    ):  # fmt: skip
        assert attack(host, name, argument).startswith("refused"), name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives instances a uid of their own")
def test_H08_started_as_root_every_instance_has_a_uid_of_its_own(host: HostProcess) -> None:
    uids = {Path(f"/proc/{instance_of(host, spec)}/root/tmp").stat().st_uid for spec in (VICTIM, ATTACKER)}
    assert len(uids) == 2
    assert min(uids) >= host.settings.sandbox_uid_base


def test_H08_an_isolated_instance_serves_and_reaches_no_network(host: HostProcess) -> None:
    isolated = toy_spec(3, network_isolated=True)
    start(host, isolated)
    name = f"clary-test-{os.getpid()}"
    with listener() as port, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        assert attack(host, "connect", f"127.0.0.1:{port}") == f"got 127.0.0.1:{port}"
        assert attack(host, "connect", f"127.0.0.1:{port}", isolated).startswith("refused ConnectionRefused")
        assert attack(host, "connect-unix", f"@{name}", isolated).startswith("refused ConnectionRefused")
    assert "Network is unreachable" in attack(host, "connect", "192.0.2.1:443", isolated)
    assert attack(host, "interfaces", spec=isolated) == "got lo"
    host.driver.remove([isolated.instance_id])


def test_H08_nothing_outlives_the_instance(host: HostProcess) -> None:
    for number, end in ((4, "stop"), (5, "kill minder"), (6, "kill instance")):
        spec = toy_spec(number)
        start(host, spec)
        seconds = f"3600.{number}{os.getpid()}"
        assert attack(host, "daemon", seconds, spec).startswith("got")
        assert is_sleeping(seconds)
        if end == "stop":
            host.driver.stop([spec.instance_id], grace_s=30)
        elif end == "kill minder":
            processes.signal(files.minder_of(host.directory(spec.instance_id)), signal.SIGKILL)
        else:
            os.kill(processes_of(host.directory(spec.instance_id))[2], signal.SIGKILL)
        until_phase(host.driver, spec.instance_id, "exited")
        assert not is_sleeping(seconds), end
        host.driver.remove([spec.instance_id])


def test_H08_too_many_processes_end_in_a_reason_that_names_the_limit() -> None:
    with running_host(sandbox="1", sandbox_processes=80) as host:
        spec = toy_spec(1)
        start(host, spec)
        with suppress(OSError, http.client.HTTPException):
            attack(host, "multiply", spec=spec)
        failure = until_phase(host.driver, spec.instance_id, "exited").failure
        assert failure is not None
        assert failure.exit_code == 7
        assert "sandbox_processes" in failure.reason
        assert processes_of(host.directory(spec.instance_id)) == []


def test_H08_on_rung_0_an_isolated_instance_is_refused_by_name() -> None:
    with running_host(sandbox="0") as host:
        spec = toy_spec(1, network_isolated=True)
        host.driver.start(spec)
        failure = until_phase(host.driver, spec.instance_id, "exited").failure
        assert failure is not None
        assert "EnableNetworkIsolation needs sandbox rung 1" in failure.reason
        status = host.client.call("status", hosts.GetStatus(), hosts.HostStatus)
        assert (status.sandbox_rung, "no security boundary" in status.sandbox) == (0, True)


def test_H08_where_the_probe_fails_it_is_rung_0_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clary.host.rungs._probe", lambda uid: "making a user namespace: refused")
    found = choose("auto", 200_000)
    assert found.number == 0
    assert "making a user namespace: refused" in found.summary
    assert "no security boundary" in found.summary
    demanded = choose("1", 200_000)
    assert "making a user namespace: refused" in demanded.refusal
    assert choose("0", 200_000) == Rung(0, "the setting `sandbox` says so")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_H08_uids_are_given_once_and_kept(tmp_path: Path) -> None:
    directories = [tmp_path / f"i-{number}" for number in range(3)]
    for directory in directories:
        directory.mkdir()
    given = [Uids(tmp_path, 300_000, 3).take(directory) for directory in directories]
    assert sorted(given) == [300_000, 300_001, 300_002]
    assert [Uids(tmp_path, 300_000, 3).take(directory) for directory in directories] == given


def test_H08_a_sandbox_that_cannot_be_made_is_a_failure_that_names_the_step() -> None:
    failure = failures.ended(VICTIM, files.Exit(1.0, refused="mounting proc: refused"), False, "none")
    assert failure.code == "StartFailed"
    assert "mounting proc: refused" in failure.reason


def test_H08_an_init_says_what_kept_it_from_making_the_sandbox(tmp_path: Path) -> None:
    plan = files.Sandbox(
        root=str(tmp_path / "absent"), readable=(), placed=(), writable=(), hidden=(), uid=None,
        isolated=False, processes=100, shm_bytes=1 << 20,
    )  # fmt: skip
    exit = ended(tmp_path, files.Launch(entry="toy:main", environment={"TOY_DO": "exit:3"}, sandbox=plan))
    assert "absent" in exit.refused
    assert "mounting tmpfs" in exit.refused


def test_H08_a_directory_that_an_instance_closed_is_erased_all_the_same(tmp_path: Path) -> None:
    """An ordinary user's host owns what its instances made, but may not look into all of it."""
    closed, kept = tmp_path / "i-1/tmp/closed", tmp_path / "i-1/tmp/kept"
    for folder, mode in ((closed, 0o000), (kept, 0o500)):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        folder.chmod(mode)
    erase(tmp_path / "i-1")
    assert list(tmp_path.iterdir()) == []


def ended(directory: Path, launch: files.Launch) -> files.Exit:
    """How an instance ends that is launched without a host's preparation."""
    manifest = Catalog.load(FRAMEWORKS).named("toy")
    assert manifest is not None
    files.write(directory, files.LAUNCH, launch)
    zygotes = Zygotes(SystemClock(), idle_s=900, max_idle=1)
    with (directory / "log").open("wb") as log:
        zygotes.fork(Environment("toy", "key", Path(sys.executable)), manifest, {}, directory, log.fileno())
    while (minder := files.minder_of(directory)) is None:
        os.sched_yield()
    assert processes.wait_gone([minder], 60) == []
    zygotes.close()
    found = files.read(directory, files.EXIT, files.Exit)
    assert found is not None
    return found
