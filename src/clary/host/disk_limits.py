"""How much an instance may write, and how much room the machine keeps.

A limit on the number of files goes with that on bytes: as many as the usual file system of that size can hold. Without
it empty files would take every inode, and make every look at them endless.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from clary.domain.instance_types import has_local_disk
from clary.domain.instances import InstanceSpec
from clary.host.disk_usage import Written
from clary.host.records import Instance

PART_TO_BLAME = 16
"""Of the reserve: who has written less than this part of it lately is not ended for it."""

BYTES_A_FILE = 16 << 10
"""Of the size of a file system an inode, as mkfs.ext4 has it."""

_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Room:
    """Of the file system that the instances are on; one that does not say how much there is has a total of 0."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """`instance_bytes` is for instances that were given no size and whose type has no disk of its own, which would be
    hundreds of GB; `reserve_bytes` is kept free. 0: none.
    """

    instance_bytes: int
    reserve_bytes: int

    def of(self, instance: Instance) -> Written:
        size_bytes = instance.spec.volume_bytes or self._unasked(instance.spec) or _NO_LIMIT
        return Written(size_bytes, max(1, size_bytes // BYTES_A_FILE))

    def reserve(self, room: Room) -> int:
        """Never more than a twentieth, so that a small disk is of use."""
        return min(self.reserve_bytes, room.total_bytes // 20)

    def least(self, room: Room) -> int:
        """Who has written less than this lately is not ended for the reserve."""
        return max(1, self.reserve(room) // PART_TO_BLAME)

    def _unasked(self, spec: InstanceSpec) -> int:
        return 0 if has_local_disk(spec.instance_type) else self.instance_bytes


def room_at(directory: Path) -> Room:
    found = os.statvfs(directory)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
