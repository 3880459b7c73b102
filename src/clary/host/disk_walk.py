"""The way down a tree and up again, however deep it is, while whoever made it may go on and mean harm.

By descriptors: no link is followed whenever it came to be, and a path may be of any depth and length. What is moved
under our feet, and a machine without descriptors to spare, cut the way off; whoever asked tries again. What is
mounted inside is left out.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_TOO_DEEP = "//"


def stats_below(directory: Path, but: Collection[str]) -> Iterator[os.stat_result]:
    """Of everything below a directory, a file with two names once; `but` are paths of directories that are left out.

    Raises `OSError` where the way is cut off.
    """
    try:
        here = os.open(directory, DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return  # removed meanwhile
    try:
        top = os.fstat(here)
        linked: set[tuple[int, int]] = set()
        deepest = max((path.count("/") for path in but), default=0)
        way = [_Level("", top, [])]
        yield from _look(here, way[-1], linked, but)
        while way:
            here, level = _move(here, way, top.st_dev, deepest)
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
                if identity(found) in linked:
                    continue
                linked.add(identity(found))
            yield found


def _move(here: int, way: list[_Level], device: int, deepest: int) -> tuple[int, _Level | None]:
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
        # Nothing that is left out is deeper, and all those paths would be as much as a tree is deep, squared.
        path = f"{level.path}{name}/" if len(way) <= deepest else _TOO_DEEP
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
        raise_without_means(error)
        return None


def open_above(here: int, expected: os.stat_result) -> int:
    """The directory above this one. Raises `OSError` where it is another than expected: something was moved."""
    above = os.open("..", DIRECTORY, dir_fd=here)
    if identity(os.fstat(above)) != identity(expected):
        os.close(above)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return above


def _reopened(name: str, here: int) -> int | None:
    """With its mode changed, so that nothing can be hidden there. By descriptor, because a name may become a link."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    except OSError as error:
        raise_without_means(error)
        return None
    try:
        os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101
        return os.open(name, DIRECTORY, dir_fd=here)
    except OSError as error:
        raise_without_means(error)
        return None
    finally:
        os.close(place)


def raise_without_means(error: OSError) -> None:
    if error.errno in _NO_MEANS:
        raise error


def identity(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)
