"""Disk space kept back, so that on a full disk objects can still be deleted: the index must grow to say so.

SQLite's log of the index has blocks in advance, which it writes over and nobody else can take. A file of nothing is
given back where that is not enough; whoever fills the disk may take it first.
"""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clary.links import free_room

log = logging.getLogger(__name__)

_SIZE = 4 << 20
_LOG_BYTES = 5 << 20  # more than SQLite writes before it carries its log over to the index: a thousand pages
_LEFT_BYTES = 1 << 20  # to everything else, above all to a start that was given this space back
_BLOCK = 512


def release(root: Path) -> None:
    """Gives the space of the store below `root` back, while nobody has the store open."""
    with suppress(OSError):  # it is best effort, as all of this
        path_below(root).unlink(missing_ok=True)


def path_below(root: Path) -> Path:
    return root / "reserve"


class Reserve:
    """Best effort: without it deleting may be refused on a full disk, and nothing else."""

    def __init__(self, path: Path, log_of_index: Path) -> None:
        self._path = path
        self._log_of_index = log_of_index
        self._is_root = free_room.is_machines_root()
        self._lock = threading.Lock()
        self._is_held = False
        self._is_log_held = False

    def hold(self) -> None:
        """Takes the space, if it is not held and there is ample."""
        with self._lock:
            if not self._is_log_held:
                self._take_log()
            if not self._is_held:
                self._take()

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Nobody holds the space inside the block, and nobody takes it again."""
        with self._lock:
            self._release()
            yield

    def _take_log(self) -> None:
        """Once: SQLite never shortens it while somebody has the index open."""
        try:
            self._allocate(self._log_of_index, _LOG_BYTES)
        except OSError as error:
            log.warning("no space held back for the log of the index", extra={"error": str(error)})
            return
        self._is_log_held = True

    def _take(self) -> None:
        try:
            self._allocate(self._path, _SIZE, os.O_CREAT)
        except OSError as error:
            log.warning("no space held back for deletions", extra={"error": str(error)})
            self._release()
            return
        self._is_held = True

    def _allocate(self, path: Path, size: int, flags: int = 0) -> None:
        """Not where it would take the last room: ext4 leaves a file what it got of an allocation that failed."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
        try:
            if os.fstat(fd).st_blocks * _BLOCK >= size:
                return
            free = free_room.free_bytes(self._path.parent, is_root=self._is_root)
            if free is not None and free < size + _LEFT_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def _release(self) -> None:
        self._is_held = False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
