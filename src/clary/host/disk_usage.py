"""What an instance has written to its disk: the files in its directory, and those it has open whose names are gone.

Blocks count, not lengths: a hole takes no room, and a file with two names takes it once. What the host has put there
does not count: artefacts are links, which are not followed, and the models of a multi-model instance have a limit of
their own. Nor does what is mounted inside.

The instance goes on writing, and may mean harm. So the way down and up again is by descriptors: no link is followed
whenever it came to be, and a path may be of any depth and length. What it moves under our feet, and a machine without
descriptors to spare, cut a look off: it is tried again, and what saw only part says so. Not seen are files without a
name that only a memory map holds.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from clary.host.models_files import MODELS, NOTES, PARTS

HOSTS_OWN = frozenset({MODELS, NOTES, PARTS})
"""Below a multi-model instance's directory, what is the host's to fill."""

MOST_DESCRIPTORS = 100_000
"""Looked at of one instance."""

TRIES = 3
_NO_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_DEEPEST_OF_HOST = max(path.count("/") for path in HOSTS_OWN)
_TOO_DEEP = "//"
_BLOCK = 512  # st_blocks, whatever the file system's own are
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        for each in (_unnamed(directory, processes), _named(directory, but)):
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


def _named(directory: Path, but: Collection[str]) -> Iterator[os.stat_result]:
    """Everything below a directory. Raises `OSError` where it is cut off."""
    try:
        here = os.open(directory, DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return  # removed meanwhile
    try:
        top = os.fstat(here)
        linked: set[tuple[int, int]] = set()
        way = [_Level("", top, [])]
        yield from _look(here, way[-1], linked, but)
        while way:
            here, level = _move(here, way, top.st_dev)
            if level is not None:
                yield from _look(here, level, linked, but)
    finally:
        os.close(here)


@dataclass(slots=True)
class _Level:
    """One directory on the way down: its path below the first, who it is, and what in it is still to be entered."""

    path: str
    found: os.stat_result
    pending: list[str]


def _look(
    here: int, level: _Level, linked: set[tuple[int, int]], but: Collection[str]
) -> Iterator[os.stat_result]:
    """What stands in a directory; its own directories are noted as pending."""
    with os.scandir(here) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode):
                if level.path + entry.name not in but:
                    level.pending.append(entry.name)
            elif found.st_nlink > 1:
                if _identity(found) in linked:
                    continue
                linked.add(_identity(found))
            yield found


def _move(here: int, way: list[_Level], device: int) -> tuple[int, _Level | None]:
    """One step: down into what is pending, with the level entered, or up. `here` is closed for what comes back."""
    level = way[-1]
    if level.pending:
        name = level.pending.pop()
        below = open_directory(name, here)
        if below is None:
            return here, None
        found = os.fstat(below)
        if found.st_dev != device:
            os.close(below)
            return here, None
        os.close(here)
        # Nothing of the host's own is deeper, and all those paths would be as much as a tree is deep, squared.
        path = f"{level.path}{name}/" if len(way) <= _DEEPEST_OF_HOST else _TOO_DEEP
        way.append(_Level(path, found, []))
        return below, way[-1]
    way.pop()
    if not way:
        return here, None
    above = open_above(here, way[-1].found)
    os.close(here)
    return above, None


def open_directory(name: str, here: int) -> int | None:
    """A directory, even one that its owner may not look into; None for what is none any more.

    Raises `OSError` where it is this process that has no means to look.
    """
    try:
        return os.open(name, DIRECTORY, dir_fd=here)
    except PermissionError:
        return _reopened(name, here)
    except OSError as error:
        _raise_without_means(error)
        return None


def open_above(here: int, expected: os.stat_result) -> int:
    """The directory above this one. Raises `OSError` where it is another than expected: something was moved."""
    above = os.open("..", DIRECTORY, dir_fd=here)
    if _identity(os.fstat(above)) != _identity(expected):
        os.close(above)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return above


def _reopened(name: str, here: int) -> int | None:
    """With its mode changed, so that nothing can be hidden there. By descriptor, because a name may become a link."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    except OSError as error:
        _raise_without_means(error)
        return None
    try:
        os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101
        return os.open(name, DIRECTORY, dir_fd=here)
    except OSError as error:
        _raise_without_means(error)
        return None
    finally:
        os.close(place)


def _raise_without_means(error: OSError) -> None:
    if error.errno in _NO_MEANS:
        raise error


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
            if not stat.S_ISREG(found.st_mode) or found.st_nlink or _identity(found) in seen:
                continue
            seen.add(_identity(found))
            if _file_system(path) == disk:
                yield found
        except OSError:
            continue  # closed meanwhile


def _descriptors(processes: Iterable[int]) -> Iterator[str]:
    for pid in processes:
        try:
            names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
        except OSError as error:
            _raise_without_means(error)
            continue  # ended meanwhile, or nobody's to look into
        for name in names:
            yield f"/proc/{pid}/fd/{name}"


def _file_system(path: Path | str) -> tuple[int, int, int]:
    """What a file and its directory have in common even on file systems that give them different devices."""
    found = os.statvfs(path)
    return (found.f_fsid, found.f_bsize, found.f_blocks)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)
