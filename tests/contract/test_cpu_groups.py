"""CPU groups by the real kernel, where it lets this user make them: who is in them, and that none is left."""

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from clary.domain.instances import InstanceSpec
from clary.host import cgroups
from clary.links import hosts, instances, processes
from hosting.harness import HostProcess, processes_of, rungs_here, running_host, toy_spec, until_phase

GROUND = cgroups.find(len(os.sched_getaffinity(0)))

needs_groups = pytest.mark.skipif(
    GROUND.group is None, reason=f"no CPU groups can be made here: {GROUND.why_not}"
)


def start(host: HostProcess, spec: InstanceSpec) -> Path:
    """A ready instance's group."""
    host.driver.start(spec)
    status = until_phase(host.driver, spec.instance_id, "ready", "exited")
    assert status.phase == "ready", status
    launch = instances.read(host.directory(spec.instance_id), instances.LAUNCH, instances.Launch)
    assert launch is not None
    assert launch.cpu_group is not None
    return Path(launch.cpu_group.directory)


def members(group: Path) -> set[int]:
    return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}


def all_but_the_minder(host: HostProcess, spec: InstanceSpec) -> set[int]:
    minder = instances.minder_of(host.directory(spec.instance_id))
    assert minder is not None
    return {*processes_of(host.directory(spec.instance_id))} - {minder.pid}


@needs_groups
@pytest.mark.parametrize("rung", rungs_here())
def test_H08_each_instance_is_in_a_group_of_its_own_which_goes_with_it(rung: str) -> None:
    with running_host(sandbox=rung) as host:
        first, second = toy_spec(1), toy_spec(2, vcpus=1)
        groups = [start(host, spec) for spec in (first, second)]
        for spec, group in zip((first, second), groups, strict=True):
            assert members(group) == all_but_the_minder(host, spec)
        weights = [int((group / _weight_file()).read_text()) for group in groups]
        assert weights[0] == weights[1] * min(2, len(os.sched_getaffinity(0)))
        host.driver.stop([first.instance_id], grace_s=5)
        until_phase(host.driver, first.instance_id, "exited")
        assert [group.exists() for group in groups] == [False, True]


@needs_groups
@pytest.mark.parametrize("rung", rungs_here())
def test_H08_a_session_of_its_own_takes_a_process_out_of_no_group(rung: str) -> None:
    with running_host(sandbox=rung) as host:
        spec = toy_spec(1)
        group = start(host, spec)
        before = members(group)
        connection = http.client.HTTPConnection("localhost")
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.connect(str(host.directory(spec.instance_id) / "http.sock"))
            connection.request("POST", "/invocations", body=b"attack daemon 3600")
            assert connection.getresponse().read().startswith(b"got")
        assert members(group) > before
        assert members(group) == all_but_the_minder(host, spec)


@needs_groups
@pytest.mark.parametrize("rung", rungs_here())
def test_H08_a_killed_host_leaves_the_groups_and_the_next_one_removes_them(rung: str) -> None:
    with running_host(sandbox=rung) as host:
        goes_on, ends = toy_spec(1), toy_spec(2)
        groups = [start(host, spec) for spec in (goes_on, ends)]
        host.kill()
        before = members(groups[0])
        minder = instances.minder_of(host.directory(ends.instance_id))
        assert minder is not None
        processes.signal(minder, signal.SIGKILL)
        host.start()
        until_phase(host.driver, ends.instance_id, "exited")
        assert members(groups[0]) == before
        host.driver.remove([goes_on.instance_id, ends.instance_id])
        assert [group.exists() for group in groups] == [False, False]


@needs_groups
def test_H08_the_host_says_that_processors_are_shared_out() -> None:
    with running_host() as host:
        status = host.client.call("status", hosts.GetStatus(), hosts.HostStatus)
        assert status.has_cpu_groups
        assert "however many processes" in status.processors


def _weight_file() -> str:
    assert GROUND.group is not None
    return GROUND.group.weight_file
