"""Removes what an instance leaves, whatever it has made of it: trees of any depth, directories closed to their owner.

A way down that recurses ends at Python's own depth, and one by names at the longest path. So it goes by descriptors,
down and up again, with one open at a time. Of the instance nothing may run any more.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clary.host.disk_walk import DIRECTORY, open_above, open_directory

Stays = Callable[["os.DirEntry[str]"], bool]


def remove(directory: Path) -> None:
    """The directory and all below it; one that is not there is no error. Raises `OSError`."""
    clear(directory)
    with suppress(FileNotFoundError):
        directory.rmdir()


def clear(directory: Path, stays: Stays = lambda entry: False) -> None:
    """All below the directory, but for what of its own entries stays. Raises `OSError`."""
    above = os.open(directory.parent, DIRECTORY)
    try:
        here = open_directory(directory.name, above)
    finally:
        os.close(above)
    if here is None:
        return
    try:
        way = [_enter(directory.name, here, stays)]
        while way:
            here = _step(here, way)
    finally:
        os.close(here)


@dataclass(frozen=True, slots=True)
class _Level:
    """One directory on the way down: its name, and what in it is still to be removed."""

    name: str
    found: os.stat_result
    folders: list[str]


def _enter(name: str, here: int, stays: Stays = lambda entry: False) -> _Level:
    found = os.fstat(here)
    os.fchmod(here, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
    return _Level(name, found, _unlink_files(here, stays))


def _step(here: int, way: list[_Level]) -> int:
    """Down into the next directory, or up, and what is empty then removed. `here` is closed for what comes back."""
    if folders := way[-1].folders:
        name = folders.pop()
        below = open_directory(name, here)
        if below is None:
            _remove_empty(name, here)  # says why where it could not be opened
            return here
        os.close(here)
        way.append(_enter(name, below))
        return below
    done = way.pop()
    if not way:
        return here
    above = open_above(here, way[-1].found)
    os.close(here)
    _remove_empty(done.name, above)
    return above


def _remove_empty(name: str, here: int) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=here)


def _unlink_files(here: int, stays: Stays) -> list[str]:
    """Everything but directories, which are named. A list of all would be too long where an instance means harm."""
    while True:
        folders, was_clean = [], True
        with os.scandir(here) as entries:
            for entry in entries:
                if stays(entry):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                    continue
                was_clean = False
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=here)
        if was_clean:
            return folders
