"""Where CPU groups can be made and what is made there, over a directory that behaves as the kernel's."""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clary.domain.instances import InstanceId
from clary.host import minder_cpu
from clary.host.cgroups import SERVER, Ground, Group, find, group_of, settle
from clary.host.cpu_groups import YOUNG_S, CpuGroups
from hosting.harness import toy_spec

INSTANCES_DIR = Path("/data/instances")
V1 = "3:memory:/other\n1:cpu,cpuacct:{path}\n0::/\n"
V2 = "0::{path}\n"


class Kernel:
    """A hierarchy mounted at `root`. Its groups have their files from the start, and lose them with their own end."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        self.cgroup, self.mounts = root.parent / "cgroup", root.parent / "mountinfo"
        self._make, self._remove = os.mkdir, os.rmdir
        self.systemd = root.parent / "systemd"
        self.refuses: OSError | None = None
        self.new_files: dict[str, str] = {}
        root.mkdir()
        self.fill(root)

    def place(self, path: str, mounted: str = "/") -> None:
        """The process is in this group, and this one is what is mounted."""
        kind = "cgroup cgroup rw,cpu,cpuacct" if self.version == 1 else "cgroup2 cgroup2 rw"
        self.cgroup.write_text((V1 if self.version == 1 else V2).format(path=path))
        self.mounts.write_text(
            f"31 23 0:28 / /sys rw - tmpfs tmpfs rw\n32 31 0:29 {mounted} {self.root} rw shared:9 - {kind}\n"
        )

    def fill(self, directory: Path) -> None:
        names = ["cgroup.procs", "cpu.shares"]
        if self.version == 2:
            names = ["cgroup.procs", "cgroup.subtree_control", "cpu.weight", "cgroup.type"]
            # What the group above has handed down; nothing yet when a server settles.
            handed = "cpu memory" if directory == self.root else ""
            (directory / "cgroup.controllers").write_text(f"{handed}\n")
        for name in names:
            (directory / name).touch()
        for name, text in self.new_files.items():
            (directory / name).write_text(text)

    def mkdir(self, path: Path | str, mode: int = 0o777, **more: int) -> None:
        if self.refuses is not None and Path(path).is_relative_to(self.root):
            raise self.refuses
        self._make(path, mode, **more)
        if Path(path).is_relative_to(self.root):
            self.fill(Path(path))

    def rmdir(self, path: Path | str, **more: int) -> None:
        directory = Path(path)
        if directory.is_relative_to(self.root):
            if (directory / "cgroup.procs").read_text() or any(each.is_dir() for each in directory.iterdir()):
                raise OSError(errno.EBUSY, "Device or resource busy")
            for file in directory.iterdir():
                file.unlink()
        self._remove(path, **more)

    def group(self, name: str, procs: str = "") -> Path:
        directory = self.root / name
        directory.mkdir()
        (directory / "cgroup.procs").write_text(procs)
        return directory

    def find(self, cores: int = 4) -> Ground:
        return find(cores, self.cgroup, self.mounts, self.systemd)

    def settle(self) -> None:
        settle(self.cgroup, self.mounts, self.systemd)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel(tmp_path / "fs", request.param)
    monkeypatch.setattr(os, "mkdir", found.mkdir)
    monkeypatch.setattr(os, "rmdir", found.rmdir)
    found.place("/")
    return found


@pytest.fixture
def ground(kernel: Kernel) -> Group:
    """The group that the server may divide."""
    kernel.group(SERVER, f"{os.getpid()}\n")
    if kernel.version == 2:
        kernel.place(f"/{SERVER}")
    found = kernel.find()
    assert found.group == Group(kernel.root, kernel.version), found
    return found.group


@pytest.fixture
def groups(ground: Group) -> CpuGroups:
    return CpuGroups(Ground(ground), INSTANCES_DIR, 4)


@pytest.fixture
def launch(groups: CpuGroups) -> dict[str, Any]:
    """What the minder of an instance is told."""
    plan = groups.plan(toy_spec(1))
    assert plan is not None
    return {
        "cpu_group": {"directory": plan.directory, "weight_file": plan.weight_file, "weight": plan.weight}
    }


@pytest.fixture
def group(launch: dict[str, Any]) -> Path:
    """The instance's own, once it is made."""
    return Path(launch["cpu_group"]["directory"])


@pytest.fixture
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The instance's log, as its minder has it."""
    path = getattr(request, "param", tmp_path / "log")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


with_v1 = pytest.mark.parametrize("kernel", [1], ids=["v1"], indirect=True)
with_v2 = pytest.mark.parametrize("kernel", [2], ids=["v2"], indirect=True)


def weights(group: Path) -> str:
    return "".join(
        (group / name).read_text() for name in ("cpu.shares", "cpu.weight") if (group / name).exists()
    )


def test_H08_a_group_is_found_below_whatever_is_mounted(kernel: Kernel) -> None:
    kernel.group("mine")
    kernel.place("/mine")
    assert group_of(kernel.cgroup, kernel.mounts) == Group(kernel.root / "mine", kernel.version)
    kernel.place("/docker/abc/mine", mounted="/docker/abc")
    assert group_of(kernel.cgroup, kernel.mounts) == Group(kernel.root / "mine", kernel.version)
    for outside in ("/docker/other", "/../abc"):
        kernel.place(outside, mounted="/docker/abc")
        assert group_of(kernel.cgroup, kernel.mounts) is None


def test_H08_a_mount_point_in_another_encoding_is_no_obstacle(kernel: Kernel) -> None:
    kernel.place("/")
    other = b"33 31 0:30 / /mnt/caf\xe9\xe2\x80\xa8one\x0ctwo rw - ext4 /dev/sdb rw\n"
    kernel.mounts.write_bytes(other + kernel.mounts.read_bytes())
    strays = b"7:name=other:/caf\xe9\x0c\xc2\x85\n"
    kernel.cgroup.write_bytes(strays + kernel.cgroup.read_bytes())
    assert group_of(kernel.cgroup, kernel.mounts) == Group(kernel.root, kernel.version)


def test_H08_a_unit_s_name_is_read_as_the_kernel_writes_it(kernel: Kernel) -> None:
    kernel.place("/a\\x2db.service", mounted="/a\\134x2db.service")
    assert group_of(kernel.cgroup, kernel.mounts) == Group(kernel.root, kernel.version)


def test_H08_without_cgroups_there_is_no_ground_and_the_words_say_what_that_means(tmp_path: Path) -> None:
    found = find(2, tmp_path / "none", tmp_path / "none")
    assert found.group is None
    assert "no CPU controller" in found.summary
    assert "slows others down" in found.summary
    (tmp_path / "cgroup").write_text("3:memory:/\n")
    (tmp_path / "mountinfo").write_text("32 31 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert find(2, tmp_path / "cgroup", tmp_path / "mountinfo").group is None


def test_H08_where_groups_cannot_be_made_the_words_say_where_and_why(kernel: Kernel) -> None:
    kernel.group(SERVER)
    kernel.place(f"/{SERVER}")
    for error in (
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
    ):
        kernel.refuses = error
        found = kernel.find()
        assert found.group is None
        assert str(error.strerror) in found.why_not
        assert str(kernel.root) in found.why_not


def test_H08_looking_leaves_nothing(kernel: Kernel, ground: Group) -> None:
    assert [each.name for each in kernel.root.iterdir() if each.is_dir()] == [SERVER]
    assert f"cgroup v{kernel.version}" in Ground(ground).summary


@with_v2
def test_H08_with_v2_the_controller_is_handed_down_and_the_server_weighs_as_much_as_the_machine(
    kernel: Kernel, ground: Group
) -> None:
    assert (kernel.root / "cgroup.subtree_control").read_text() == "+cpu"
    assert weights(kernel.root / SERVER) == "400"


@with_v2
def test_H08_a_group_that_can_only_be_read_is_called_that_and_not_shared(kernel: Kernel) -> None:
    kernel.refuses = OSError(errno.EROFS, "Read-only file system")
    found = kernel.find()
    assert "Read-only file system" in found.why_not
    assert "mounted writable" in found.why_not
    kernel.refuses = PermissionError(errno.EACCES, "Permission denied")
    assert "Permission denied; Delegate=yes" in kernel.find().why_not


@with_v1
def test_H08_with_v1_a_group_that_nobody_can_join_is_no_ground(kernel: Kernel) -> None:
    kernel.new_files = {"cpuset.cpus": "\n", "cpuset.mems": "\n"}
    found = kernel.find()
    assert found.group is None
    assert "cgroup.clone_children" in found.why_not
    kernel.new_files = {"cpuset.cpus": "0-3\n", "cpuset.mems": "0\n"}
    assert kernel.find().group == Group(kernel.root, 1)


@pytest.mark.parametrize("gone", [errno.ENOENT, errno.ENODEV])
def test_H08_a_look_that_loses_its_group_to_another_host_looks_again(
    kernel: Kernel, ground: Group, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, write = [], Path.write_text

    def lose_two(path: Path, text: str) -> int:
        if path.match("clary-probe-*/cpu.*"):
            writes.append(path)
            if len(writes) < 3:
                raise OSError(gone, os.strerror(gone))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", lose_two)
    assert kernel.find().group == ground
    assert len(writes) == 3


@with_v2
def test_H08_with_v2_a_group_that_holds_others_is_not_divided(kernel: Kernel) -> None:
    found = kernel.find()
    assert found.group is None
    assert "Delegate=yes" in found.why_not
    assert (kernel.root / "cgroup.subtree_control").read_text() == ""
    (kernel.root / "cgroup.controllers").write_text("memory\n")
    assert "no CPU controller" in kernel.find().why_not


@with_v2
def test_H08_with_v2_the_machine_s_first_group_may_hold_processes(kernel: Kernel) -> None:
    (kernel.root / "cgroup.type").unlink()
    assert kernel.find().group == Group(kernel.root, 2)


@with_v2
def test_H08_a_server_alone_in_a_group_of_v2_moves_one_down(kernel: Kernel) -> None:
    (kernel.root / "cgroup.procs").write_text(f"{os.getpid()}\n")
    kernel.settle()
    assert (kernel.root / SERVER / "cgroup.procs").read_text() == "0"


@with_v2
@pytest.mark.parametrize("why", ["others", "no controller", "refused", "settled"])
def test_H08_a_server_that_may_not_divide_its_group_stays_in_it(kernel: Kernel, why: str) -> None:
    procs = kernel.root / "cgroup.procs"
    procs.write_text(f"{os.getpid()}\n")
    if why == "others":
        procs.write_text(f"1\n{os.getpid()}\n")
    elif why == "no controller":
        (kernel.root / "cgroup.controllers").write_text("memory\n")
    elif why == "refused":
        kernel.refuses = PermissionError(errno.EACCES, "Permission denied")
    elif why == "settled":
        kernel.group(SERVER, f"{os.getpid()}\n")
        kernel.place(f"/{SERVER}")
    kernel.settle()
    assert list(kernel.root.rglob(f"{SERVER}/{SERVER}")) == []
    assert (kernel.root / SERVER).exists() == (why == "settled")


@with_v2
@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate", None])
def test_H08_under_systemd_only_a_group_that_it_handed_over_is_divided(
    kernel: Kernel, mark: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.systemd.mkdir()

    def getxattr(path: Path, name: str) -> bytes:
        if name == mark and path == kernel.root:
            return b"1"
        raise OSError(errno.ENODATA, "No data available")

    monkeypatch.setattr(os, "getxattr", getxattr)
    (kernel.root / "cgroup.procs").write_text(f"{os.getpid()}\n")
    kernel.settle()
    assert (kernel.root / SERVER).exists() == (mark is not None)
    if mark is None:
        assert "belongs to systemd; Delegate=yes in its unit" in kernel.find().why_not


@with_v1
def test_H08_with_v1_a_server_stays_where_it_is(kernel: Kernel) -> None:
    (kernel.root / "cgroup.procs").write_text(f"{os.getpid()}\n")
    kernel.settle()
    assert not (kernel.root / SERVER).exists()
    assert kernel.find().group == Group(kernel.root, 1)


@pytest.mark.parametrize(
    ("vcpus", "containers", "v1", "v2"),
    [(1, 0, 1024, 100), (2, 0, 2048, 200), (96, 0, 4096, 400), (2, 2, 1024, 100), (1, 3, 341, 33)],
)
def test_H08_an_instance_weighs_what_its_type_has_up_to_the_machine(
    kernel: Kernel, ground: Group, vcpus: int, containers: int, v1: int, v2: int
) -> None:
    groups = CpuGroups(Ground(ground), INSTANCES_DIR, cores=4)
    plan = groups.plan(replace(toy_spec(1), vcpus=vcpus, member_count=containers))
    assert plan is not None
    assert plan.weight == (v1 if kernel.version == 1 else v2)
    assert Path(plan.directory).parent == kernel.root


def test_H08_weights_stay_within_what_the_kernel_takes() -> None:
    assert [Group(Path("/"), 1).weight(vcpus) for vcpus in (0.0001, 1000)] == [2, 262_144]
    assert [Group(Path("/"), 2).weight(vcpus) for vcpus in (0.0001, 1000)] == [1, 10_000]


def test_H08_without_a_ground_nothing_is_planned() -> None:
    groups = CpuGroups(Ground(None, "none here"), INSTANCES_DIR, cores=4)
    assert groups.plan(toy_spec(1)) is None
    groups.remove(InstanceId("i-1"))
    groups.sweep()


def test_H08_the_same_id_of_another_data_directory_is_another_group(ground: Group) -> None:
    plans = [CpuGroups(Ground(ground), Path(f"/{name}"), 4).plan(toy_spec(1)) for name in ("one", "two")]
    assert None not in plans
    assert plans[0] != plans[1]


def test_H08_what_was_left_is_removed_and_what_is_in_use_is_not(kernel: Kernel, ground: Group) -> None:
    kernel.group("clary-of-a-server-that-was-killed")
    kernel.group("clary-in-use", "17\n")
    kernel.group("somebody-else-s")
    (kernel.root / SERVER / "cgroup.procs").write_text("")
    CpuGroups(Ground(ground), INSTANCES_DIR, 4, now=_later).sweep()
    left = sorted(each.name for each in kernel.root.iterdir() if each.is_dir())
    assert left == ["clary-in-use", SERVER, "somebody-else-s"]


def test_H08_a_group_that_was_made_a_moment_ago_waits_for_its_instance(kernel: Kernel, ground: Group) -> None:
    made_at = kernel.group("clary-of-an-instance-that-begins").stat().st_mtime
    for since, left in ((0.0, True), (YOUNG_S / 2, True), (YOUNG_S, False)):
        groups = CpuGroups(Ground(ground), INSTANCES_DIR, 4, now=partial(sum, (made_at, since)))
        groups.sweep()
        assert (kernel.root / "clary-of-an-instance-that-begins").exists() == left
    kernel.group("clary-made-before-the-clock-was-put-back")
    CpuGroups(Ground(ground), INSTANCES_DIR, 4, now=lambda: made_at - 3600).sweep()
    assert not (kernel.root / "clary-made-before-the-clock-was-put-back").exists()


def test_H08_an_instance_joins_its_group_and_the_group_goes_with_it(
    kernel: Kernel, groups: CpuGroups, launch: dict[str, Any], group: Path, log: int
) -> None:
    minder_cpu.join(launch, 17, log)
    assert (group / "cgroup.procs").read_text() == "17"
    assert weights(group) == ("2048" if kernel.version == 1 else "200")
    minder_cpu.remove(launch)
    groups.remove(toy_spec(1).instance_id)
    assert group.exists(), "it holds a process"
    (group / "cgroup.procs").write_text("")
    minder_cpu.remove(launch)
    assert not group.exists()


def test_H08_a_minder_that_was_killed_leaves_its_group_to_the_host(
    groups: CpuGroups, launch: dict[str, Any], group: Path, log: int
) -> None:
    minder_cpu.join(launch, 17, log)
    (group / "cgroup.procs").write_text("")
    groups.remove(toy_spec(1).instance_id)
    assert not group.exists()


def test_H08_a_group_that_a_host_removed_before_the_instance_joined_is_made_again(
    kernel: Kernel,
    ground: Group,
    launch: dict[str, Any],
    group: Path,
    log: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeping, made = CpuGroups(Ground(ground), INSTANCES_DIR, 4, now=_later), []

    def sweep_twice(path: str, *arguments: int) -> None:
        kernel.mkdir(path, *arguments)
        made.append(path)
        if len(made) <= 2:
            sweeping.sweep()

    monkeypatch.setattr(os, "mkdir", sweep_twice)
    minder_cpu.join(launch, 17, log)
    assert len(made) == 3
    assert (group / "cgroup.procs").read_text() == "17"
    assert _said(kernel) == ""


def test_H08_a_group_that_goes_between_opening_and_writing_is_made_again(
    kernel: Kernel, launch: dict[str, Any], group: Path, log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = minder_cpu._put_into
    lost: list[object] = []

    def lose_once(group: Mapping[str, Any], pid: int) -> None:
        if not lost:
            lost.append(group)
            raise OSError(errno.ENODEV, "No such device")
        put(group, pid)

    monkeypatch.setattr(minder_cpu, "_put_into", lose_once)
    minder_cpu.join(launch, 17, log)
    assert (group / "cgroup.procs").read_text() == "17"
    assert _said(kernel) == ""


@pytest.mark.parametrize("log", ["/dev/full"], indirect=True)
def test_H08_a_full_disk_takes_the_line_and_not_the_instance(
    kernel: Kernel, launch: dict[str, Any], log: int
) -> None:
    kernel.refuses = OSError(errno.EAGAIN, "too many groups")
    minder_cpu.join(launch, 17, log)


def test_H08_an_instance_that_gets_no_group_serves_and_its_log_says_so(
    kernel: Kernel, launch: dict[str, Any], log: int
) -> None:
    kernel.refuses = OSError(errno.EAGAIN, "too many groups")
    minder_cpu.join(launch, 17, log)
    assert "no share of the processors of its own: [Errno 11] too many groups" in _said(kernel)


def test_H08_an_instance_that_ended_before_it_joined_is_no_news(
    kernel: Kernel, launch: dict[str, Any], log: int
) -> None:
    kernel.refuses = ProcessLookupError(errno.ESRCH, "No such process")
    minder_cpu.join(launch, 17, log)
    minder_cpu.join({"cpu_group": None}, 17, log)
    minder_cpu.remove({"cpu_group": None})
    assert _said(kernel) == ""


def _said(kernel: Kernel) -> str:
    return (kernel.root.parent / "log").read_text()


def _later() -> float:
    """When what is there now is young no more."""
    return time.time() + 2 * YOUNG_S
