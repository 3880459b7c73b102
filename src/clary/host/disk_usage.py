"""What an instance has written to its disk: the files in its directory, and those it has open whose names are gone.

Blocks count, not lengths: a hole takes no room, and a file with two names takes it once. What the host has put there
does not count: artefacts are links, which are not followed, and the models of a multi-model instance have a limit of
their own. Nor does what is mounted inside.

The instance goes on writing, and may mean harm, which may cut a look off (`disk_walk`): it is tried again, and what saw
only part says so. Not seen are files without a name that only a memory map holds.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from clary.host.disk_walk import identity, raise_without_means, stats_below
from clary.host.models_files import MODELS, NOTES, PARTS

HOSTS_OWN = frozenset({MODELS, NOTES, PARTS})
"""Below a multi-model instance's directory, what is the host's to fill."""

MOST_DESCRIPTORS = 100_000
"""Looked at of one instance."""

TRIES = 3
_BLOCK = 512  # st_blocks, whatever the file system's own are


@dataclass(frozen=True, slots=True)
class Written:
    """Files without a name count as well. What is not whole is the least that there is."""

    size_bytes: int = 0
    files: int = 0
    is_whole: bool = True

    def __add__(self, other: "Written") -> "Written":
        is_whole = self.is_whole and other.is_whole
        return Written(self.size_bytes + other.size_bytes, self.files + other.files, is_whole)

    def exceeds(self, most: "Written") -> bool:
        return self.size_bytes > most.size_bytes or self.files > most.files


def written(
    directory: Path,
    processes: Sequence[int],
    enough: Written,
    but: Collection[str] = frozenset(),
    *,
    spare_ahead: bool = False,
) -> Written:
    """By an instance; `but` are paths in its directory. Counting ends where it is more than `enough`.

    `spare_ahead`: without blocks beyond a file's end, which some file systems hold ready for who writes on.
    """
    most = Written(is_whole=False)
    size = _size_without_ahead if spare_ahead else _size
    for _ in range(TRIES):
        found = _written_once(directory, processes, enough, but, size)
        if found.is_whole:
            return found
        most = max(most, found, key=lambda each: each.size_bytes)
    return most


def is_same_disk(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_dev == other.stat().st_dev
    except OSError:
        return False


def _written_once(
    directory: Path, processes: Sequence[int], enough: Written, but: Collection[str], size: "_Size"
) -> Written:
    found = Written()
    try:
        for each in (_unnamed(directory, processes), stats_below(directory, but)):
            for file in each:
                found += Written(size(file), 1)
                if found.exceeds(enough):
                    return found
    except OSError:
        return replace(found, is_whole=False)
    return found


_Size = Callable[[os.stat_result], int]


def _size(found: os.stat_result) -> int:
    return found.st_blocks * _BLOCK


def _size_without_ahead(found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        return _size(found)
    return min(_size(found), -(-found.st_size // found.st_blksize) * found.st_blksize)


def _unnamed(directory: Path, processes: Iterable[int]) -> Iterator[os.stat_result]:
    """Files that these processes hold open and nobody can find any more."""
    try:
        disk = _file_system(directory)
    except OSError:
        return
    seen: set[tuple[int, int]] = set()
    for path in islice(_descriptors(processes), MOST_DESCRIPTORS):
        try:
            found = os.stat(path)  # noqa: PTH116
            if not stat.S_ISREG(found.st_mode) or found.st_nlink or identity(found) in seen:
                continue
            seen.add(identity(found))
            if _file_system(path) == disk:
                yield found
        except OSError:
            continue  # closed meanwhile


def _descriptors(processes: Iterable[int]) -> Iterator[str]:
    for pid in processes:
        try:
            names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
        except OSError as error:
            raise_without_means(error)
            continue  # ended meanwhile, or nobody's to look into
        for name in names:
            yield f"/proc/{pid}/fd/{name}"


def _file_system(path: Path | str) -> tuple[int, int, int]:
    """What a file and its directory have in common even on file systems that give them different devices."""
    found = os.statvfs(path)
    return (found.f_fsid, found.f_bsize, found.f_blocks)
