"""Puts captured requests into their buckets: files that gateways have finished, or left when they were killed.

A file is removed only after its object is there, under a key that the file itself names: doing it twice, after a kill
in between, writes the same object again. Works through everything there is, oldest first, every few seconds.
"""

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from clary.blobs.base import Attributes, BlobStore, NoSuchBucket, StorageFailed
from clary.domain.clock import Clock
from clary.links import captures, processes
from clary.links.captures import Header, UnreadableCapture

log = logging.getLogger(__name__)

KEPT_WITHOUT_BUCKET = timedelta(hours=1)


class CaptureShipping:
    """`dropped(header, records)` is told of requests that were captured and could not be kept."""

    def __init__(
        self, directory: Path, blobs: BlobStore, clock: Clock, dropped: Callable[[Header, int], None]
    ) -> None:
        self._directory = directory
        self._blobs = blobs
        self._clock = clock
        self._dropped = dropped
        self._complained: set[str] = set()

    def ship(self) -> int:
        """Puts every finished file into its bucket; how many were. What cannot be put now stays for the next time."""
        shipped = 0
        for path in self._finished():
            try:
                shipped += self._ship(path)
            except FileNotFoundError:
                continue  # somebody emptied the directory
            except (StorageFailed, OSError) as error:
                log.warning("captured requests wait: the disk fails", extra={"error": str(error)})
                break
        return shipped

    def clear(self) -> None:
        """Forgets what waits."""
        for path in self._directory.glob(f"*{captures.READY}"):
            path.unlink(missing_ok=True)

    def _finished(self) -> list[Path]:
        ready = list(self._directory.glob(f"*{captures.READY}"))
        orphans = [
            path
            for path in self._directory.glob(f"*{captures.PART}")
            if not processes.is_alive(captures.writer_of(path))
        ]
        return sorted([*ready, *orphans], key=_age)

    def _ship(self, path: Path) -> bool:
        with path.open("rb") as file:
            try:
                header = captures.read_header(file)
            except UnreadableCapture:
                path.unlink(missing_ok=True)  # killed before its first line was whole: nothing is in it
                return False
            is_put = self._put(header, file)
        if is_put or self._is_given_up(header, path):
            path.unlink(missing_ok=True)
        return is_put

    def _put(self, header: Header, file: BinaryIO) -> bool:
        """Whether its bucket has it."""
        digest = hashlib.md5(usedforsecurity=False)
        with self._blobs.stage() as staged:
            for piece in captures.whole_lines(file):
                staged.write(piece)
                digest.update(piece)
            if not staged.size:
                return True  # a header without requests
            attributes = Attributes(headers={"content-type": "application/x-jsonlines"})
            try:
                self._blobs.put(
                    header.bucket, header.key, staged, etag=digest.hexdigest(), attributes=attributes
                )
            except NoSuchBucket:
                return False
        self._complained.discard(header.bucket)
        return True

    def _is_given_up(self, header: Header, path: Path) -> bool:
        """A file whose bucket is not there waits an hour for somebody to make it."""
        if header.bucket not in self._complained:
            self._complained.add(header.bucket)
            log.warning(
                "captured requests wait: their bucket does not exist",
                extra={"bucket": header.bucket, "endpoint": header.endpoint},
            )
        if self._clock.now() - _written_at(path, self._clock) < KEPT_WITHOUT_BUCKET:
            return False
        with path.open("rb") as file:
            captures.read_header(file)
            records = sum(piece.count(b"\n") for piece in captures.whole_lines(file))
        self._dropped(header, records)
        return True


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _written_at(path: Path, clock: Clock) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, clock.now().tzinfo)
