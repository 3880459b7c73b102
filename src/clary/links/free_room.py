"""How much room a disk has for this process: what the kernel says is free is not all to be had.

A file system may keep a part for root, which is room where that is who the server is. ext4 keeps a little more from
everybody, and counts it among what root has; only what it says that others have is without it.
"""

import errno
import os
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a write says where there is none."""

_USER_MAP = Path("/proc/self/uid_map")
_ONE_TO_ONE = ["0", "0", "4294967295"]
_KEPT_FROM_ALL = 4096  # blocks: the most that ext4 keeps so, and for any other file system not too many


def is_machines_root() -> bool:
    """Whether this process is root, and no user namespace made it so: root inside is nobody's root outside."""
    try:
        return os.geteuid() == 0 and _USER_MAP.read_text().split() == _ONE_TO_ONE
    except OSError:
        return False


def free_bytes(directory: Path, *, is_root: bool) -> int | None:
    """None where the file system does not say. Raises OSError."""
    found = os.statvfs(directory)
    if found.f_blocks == 0:
        return None
    roots = found.f_bfree - _KEPT_FROM_ALL if is_root else 0
    return max(found.f_bavail, roots) * found.f_frsize
