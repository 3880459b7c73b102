"""Room held back for the store, so that on a full disk what leads to room again can still be written down.

A file to be given up would be of no use: whoever fills the disk takes its room first. SQLite never shortens its log
but writes over it, and fills free pages of the database before it asks for new ones. So both are had in advance: a log
with blocks for some thousand pages, and a stock of free pages, which lets the log be written back as well. Nobody else
can take either, and nothing has to be given up or taken back.

While there is no room but this, everything else is refused before it begins. It takes a file system that writes in
place: on one that copies (ZFS, Btrfs with snapshots) even old blocks need new ones, and deletions may be refused.
"""

import logging
import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from clary.links import free_room

LOG_BYTES = 12 << 20  # below what one region of SQLite's index of the log covers
FREE_PAGES = 256
LITTLE_ROOM_BYTES = 1 << 20
AMPLE_ROOM_BYTES = 4 * LOG_BYTES
_BLOCK = 512

log = logging.getLogger(__name__)


class Reserve:
    """Of the database at `path`. Used by one thread at a time: who writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._is_root = free_room.is_machines_root()
        self._has_failed = False

    def is_all_there_is(self) -> bool:
        """Whether the disk has no other room left. Not where the file system does not say."""
        free = self._free_bytes()
        return free is not None and free < LITTLE_ROOM_BYTES

    def hold(self, writer: sa.Engine) -> None:
        """Fills up what is not held, while there is ample room. Costs next to nothing when all is. Best effort."""
        free = self._free_bytes()
        if free is None or free < AMPLE_ROOM_BYTES:
            return
        try:
            self._hold_log()
            _hold_pages(writer)
        except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            if not self._has_failed:
                log.warning("no room is held back for the store", extra={"error": str(error)})
            self._has_failed = True

    def _hold_log(self) -> None:
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_blocks * _BLOCK < LOG_BYTES:
                os.posix_fallocate(descriptor, 0, LOG_BYTES)
        finally:
            os.close(descriptor)

    def _free_bytes(self) -> int | None:
        return free_room.free_bytes(self._path.parent, is_root=self._is_root)


def _hold_pages(writer: sa.Engine) -> None:
    """Pages that were written once are blocks of the file, and free when what stood in them is deleted."""
    connection = writer.raw_connection()
    try:
        cursor = connection.cursor()
        (free,) = cursor.execute("PRAGMA freelist_count").fetchone()
        if free >= FREE_PAGES // 2:
            return
        (page_bytes,) = cursor.execute("PRAGMA page_size").fetchone()
        cursor.execute("DROP TABLE IF EXISTS room")
        cursor.execute("CREATE TABLE room (filler BLOB)")
        cursor.execute("INSERT INTO room VALUES (zeroblob(?))", (FREE_PAGES * page_bytes,))
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        cursor.execute("DROP TABLE room")
    finally:
        connection.close()
