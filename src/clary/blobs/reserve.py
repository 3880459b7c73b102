"""Disk space kept back, so that on a full disk objects can still be deleted: the index must grow to say so."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

_SIZE = 4 << 20


class Reserve:
    """A file of nothing. Best effort: without it deleting may be refused on a full disk, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_held = False

    def hold(self) -> None:
        """Takes the space, if it is not held and there is any."""
        with self._lock:
            if not self._is_held:
                self._take()

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Nobody holds the space inside the block, and nobody takes it again."""
        with self._lock:
            self._release()
            yield

    def _take(self) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _SIZE)
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("no space held back for deletions", extra={"error": str(error)})
            self._release()
            return
        self._is_held = True

    def _release(self) -> None:
        self._is_held = False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
