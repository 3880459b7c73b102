"""Where this machine's kernel lets the server make control groups with a CPU weight, with cgroup v1 or v2.

With v1 any group may be divided by who may write it. With v2 the kernel gives weights only below groups that hold no
processes, so the server needs one that is its own: found alone in it, it moves one group down (`settle`). A group that
it shares with others, a shell say, is not its to empty, and it goes without. So is one that systemd made and keeps to
itself: it marks those that it hands over (`Delegate=`).
"""

import errno
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
SYSTEMD = Path("/run/systemd/system")
"""There where systemd runs."""

PREFIX = "clary-"
"""Of all the groups that hosts make below the ground."""

SERVER = "clary-server"
"""Where the server's own processes are, with v2."""

_HINT = (
    "Delegate=yes in its unit, or systemd-run --scope -p Delegate=yes clary up (as a user: with --user), "
    "gives it one of its own"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A control group of the hierarchy that has the CPU controller."""

    directory: Path
    version: int

    @property
    def weight_file(self) -> str:
        return "cpu.shares" if self.version == 1 else "cpu.weight"

    def weight(self, vcpus: float) -> int:
        """One vCPU weighs as much as a process or a session outside of all groups."""
        one, least, most = (1024, 2, 262_144) if self.version == 1 else (100, 1, 10_000)
        return max(least, min(int(one * vcpus), most))

    def below(self, name: str) -> "Group":
        return Group(self.directory / name, self.version)


@dataclass(frozen=True, slots=True)
class Ground:
    """The group below which the server may make others; without one, why not, for people."""

    group: Group | None
    why_not: str = ""

    @property
    def summary(self) -> str:
        """One line for `clary up` and `clary doctor`."""
        if self.group is None:
            return f"not shared out ({self.why_not}): an instance with many processes slows others down"
        version = self.group.version
        return f"shared out by vCPUs (cgroup v{version}), however many processes an instance starts"


def find(cores: int, cgroup: Path = CGROUP, mounts: Path = MOUNTS, systemd: Path = SYSTEMD) -> Ground:
    """Looks, and makes one group to see that it works. With v2 it hands the controller down."""
    own = group_of(cgroup, mounts)
    if own is None:
        return Ground(None, "there is no CPU controller (cgroup) here")
    if is_settled := own.version == 2 and own.directory.name == SERVER:
        own = Group(own.directory.parent, 2)
    if own.version == 2 and not _offers_cpu(own):
        return Ground(None, f"its cgroup has no CPU controller; {_HINT}")
    try:
        # Before the next question: a group that nothing can be made in would be taken for one that is shared.
        _try(own, "")
        if own.version == 2 and not is_settled and _must_be_empty(own):
            whose = "holds other processes" if _is_handed_over(own, systemd) else "belongs to systemd"
            return Ground(None, f"its cgroup {whose}; {_HINT}")
        _prepare(own, cores)
    except OSError as error:
        return Ground(None, f"no groups can be made in {_shown(own)}: {error.strerror}{_remedy(own, error)}")
    return Ground(own)


def settle(cgroup: Path = CGROUP, mounts: Path = MOUNTS, systemd: Path = SYSTEMD) -> None:
    """Moves this process one group down, if it is alone in one of v2 that it may divide. Before it starts others."""
    own = group_of(cgroup, mounts)
    if own is None or own.version == 1 or own.directory.name == SERVER or not _offers_cpu(own):
        return
    try:
        if _words(own.directory / "cgroup.procs") != [str(os.getpid())] or not _is_handed_over(own, systemd):
            return
        leaf = own.directory / SERVER
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
    except OSError as error:
        log.info("the server stays in the control group it was started in", extra={"error": str(error)})


def group_of(cgroup: Path, mounts: Path = MOUNTS) -> Group | None:
    """Of the process whose /proc file this is, as this process sees it; None where there is no CPU controller."""
    try:
        version, path = _path(_lines(cgroup))
        for root, place in _mounted(_lines(mounts), version):
            if path.is_relative_to(root) and ".." not in path.parts:
                return Group(place / path.relative_to(root), version)
    except OSError:
        return None  # the process is gone, or there is no such file
    return None


def _lines(path: Path) -> list[str]:
    """Names in there are bytes, of any encoding, and only a line feed ends a line."""
    return [line for line in os.fsdecode(path.read_bytes()).split("\n") if line]


def _path(lines: list[str]) -> tuple[int, Path]:
    """The controller lives in one hierarchy: v2 has it where no v1 has."""
    found = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    for names, path in found.items():
        if "cpu" in names.split(","):
            return 1, Path(path)
    return 2, Path(found.get("", ""))


def _mounted(lines: list[str], version: int) -> Iterator[tuple[Path, Path]]:
    """Which group is mounted, and where."""
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, place = (Path(_unescaped(field)) for field in before.split(" ")[3:5])
        if (version == 2 and kind == "cgroup2") or (
            version == 1 and kind == "cgroup" and "cpu" in options.split(",")
        ):
            yield root, place


def _unescaped(field: str) -> str:
    """The kernel writes a space as \\040, and a backslash, which systemd's names have, as \\134."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _prepare(group: Group, cores: int) -> None:
    if group.version == 2:
        (group.directory / "cgroup.subtree_control").write_text("+cpu")
        if (server := group.below(SERVER)).directory.is_dir():
            # All that the server does shares this: as much as an instance of the machine's size.
            (server.directory / server.weight_file).write_text(str(server.weight(cores)))
    _try(group, group.weight_file)


def _try(group: Group, weight_file: str) -> None:
    """Makes a group as an instance's is made, gives it a weight if there is a file for it, and removes it."""
    for last in (False, False, True):
        try:
            _try_once(group, weight_file)
        except OSError as error:
            # A host that begins or ends meanwhile removes groups that are empty.
            if last or error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
        else:
            return


def _try_once(group: Group, weight_file: str) -> None:
    probe = group.below(f"{PREFIX}probe-{os.getpid()}")
    probe.directory.mkdir(exist_ok=True)
    try:
        if weight_file:
            (probe.directory / weight_file).write_text(str(probe.weight(1)))
        _see_that_it_can_be_joined(probe)
    finally:
        probe.directory.rmdir()


def _see_that_it_can_be_joined(probe: Group) -> None:
    """With v1 the controller of processors by number may be mounted with this one, and give a new group none."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if probe.version == 1 and (file := probe.directory / name).exists() and not _words(file):
            raise OSError(
                errno.ENOSPC, f"a new one has no {name}; echo 1 to cgroup.clone_children there helps"
            )


def _is_handed_over(group: Group, systemd: Path) -> bool:
    """systemd marks what it lets others divide; what it did not mark, it may move and remove at any time."""
    return not systemd.exists() or any(
        _mark(group.directory, name) == b"1" for name in ("user.delegate", "trusted.delegate")
    )


def _mark(directory: Path, name: str) -> bytes:
    try:
        return os.getxattr(directory, name)
    except OSError:
        return b""  # there is none, or the kernel has none for groups


def _remedy(group: Group, error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "; it must be mounted writable, for a container by its engine"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    return f"; {_HINT}" if group.version == 2 else "; root can, or the user that it is handed to with chown"


def _shown(group: Group) -> str:
    """For people, and for outputs that take no stray bytes."""
    return os.fsencode(group.directory).decode("utf-8", "backslashreplace")


def _must_be_empty(group: Group) -> bool:
    """Whether the kernel demands it: of the machine's first group alone it does not."""
    return (group.directory / "cgroup.type").exists()


def _offers_cpu(group: Group) -> bool:
    try:
        return "cpu" in _words(group.directory / "cgroup.controllers")
    except OSError:
        return False


def _words(path: Path) -> list[str]:
    return path.read_text().split()
