"""Whether the kernel has killed in a container for want of memory, read from its cgroup.

Engines tell it themselves, but not everywhere: Podman misses it on cgroup v1. The cgroup goes soon after the
container, so the file is opened while it runs and read the moment it ends.
"""

import os
import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_COUNT = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


class Killings:
    """Of one container, named by its first process. Where there is nothing to read it counts none."""

    def __init__(self, pid: int, groups: Path | None = None, root: Path = ROOT) -> None:
        self._descriptor: int | None = None
        try:
            lines = (groups or Path(f"/proc/{pid}/cgroup")).read_text().splitlines()
            self._descriptor = os.open(_file(lines, root), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def count(self) -> int:
        if self._descriptor is None:
            return 0
        try:
            found = _COUNT.search(os.pread(self._descriptor, 4096, 0))
        except OSError:  # it has gone
            return 0
        return int(found[1]) if found else 0


def _file(lines: list[str], root: Path) -> Path:
    """`NUMBER:CONTROLLERS:PATH`: version 1 has a tree for memory, version 2 one for everything."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "memory.oom_control"
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    return root / path.lstrip("/") / "memory.events"
