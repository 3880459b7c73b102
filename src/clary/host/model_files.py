"""What a model's files tell of what serves it: by their names the framework, by their first bytes the environment.

An archive may hold another framework's model than its image says. Older versions wrote files and pickles that later
ones refuse. What to look for is data of the frameworks' manifests (`catalog.Instead`, `catalog.Older`); here the
files are found and their beginnings compared, and nothing in them is ever loaded.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from clary.catalog import Older

MODEL = "opt/ml/model"
BEGINNING_BYTES = 64 << 10
MOST_FILES = 64


def needs_older(older: Older, directory: Path) -> bool:
    """Whether a file in the root of the instance's model, once it is placed, has one of the signs."""
    return any(older.is_needed_for(beginning) for beginning in _beginnings(directory / MODEL))


def names(directory: Path) -> list[str]:
    """Of the plain files in the root of the instance's model, hidden ones left out."""
    model = directory / MODEL
    if not model.is_dir():
        return []
    with os.scandir(model) as entries:
        found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    return sorted(name for name in found if not name.startswith("."))


def _beginnings(model: Path) -> Iterator[bytes]:
    if not model.is_dir():
        return
    with os.scandir(model) as entries:
        found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in found[:MOST_FILES]:
        yield _beginning(model / name)


def _beginning(path: Path) -> bytes:
    """Of a plain file; a link is not followed, because an archive may say where it leads."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""  # a link, or gone: the instance says so better
    try:
        is_plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, BEGINNING_BYTES) if is_plain else b""
    finally:
        os.close(descriptor)
