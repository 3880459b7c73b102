"""The index of a file system's blob store: one SQLite file, one writing connection, pooled readers.

It says how to reach the tables and nothing of what they mean (`records`). WAL lets readers, also those of other
processes, go on while one writes; synchronous=FULL makes a commit outlive a loss of power.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from clary.blobs.base import OutOfSpace, StorageFailed
from clary.blobs.failures import translated

_SCHEMA = """
CREATE TABLE buckets (
    name TEXT PRIMARY KEY, region TEXT NOT NULL, created_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE objects (
    bucket TEXT NOT NULL, key BLOB NOT NULL, payload TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    modified_us INTEGER NOT NULL, algorithm TEXT, checksum TEXT, checksum_type TEXT, upload_id TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX objects_by_payload ON objects (payload);
CREATE TABLE uploads (
    bucket TEXT NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL UNIQUE, started_us INTEGER NOT NULL,
    algorithm TEXT NOT NULL, checksum_type TEXT NOT NULL, asked INTEGER NOT NULL, details TEXT NOT NULL,
    PRIMARY KEY (bucket, key, id)
) WITHOUT ROWID;
CREATE TABLE parts (
    upload_id TEXT NOT NULL, number INTEGER NOT NULL, payload TEXT NOT NULL, size INTEGER NOT NULL,
    etag TEXT NOT NULL, modified_us INTEGER NOT NULL, algorithm TEXT, checksum TEXT, checksum_type TEXT,
    PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX parts_by_payload ON parts (payload);
"""
_VERSION = 1

# What later versions added; servers of version 1 that know nothing of it go on beside them.
_ADDED = "CREATE TABLE IF NOT EXISTS bucket_tags (bucket TEXT PRIMARY KEY, tags TEXT NOT NULL) WITHOUT ROWID"


class NotMadeYet(StorageFailed):
    """There is no index yet, so there are no objects."""


class CommitUncertain(StorageFailed):
    """The disk failed in the middle of a commit: only the next start will show whether it holds."""


class Index:
    """Safe for use by several threads. Connections are opened when they are needed."""

    def __init__(self, path: Path, *, read_only: bool, sync: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._sync = sync
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None

    def prepare(self) -> None:
        """Makes the tables where there are none yet. Before this, readers find nothing."""
        with self._write_lock, translated("opening the index of the objects"):
            self._writer = self._open_writer()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        with translated("reading the index of the objects"):
            connection = self._borrow()
            try:
                yield connection
            except sqlite3.Error:
                connection.close()
                raise
            except BaseException:
                self._give_back(connection)
                raise
            self._give_back(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction. What the body raises rolls it back; once this has returned it is durable."""
        if self._read_only:
            raise StorageFailed("these objects were opened for reading only")
        with self._write_lock:
            with translated("writing the index of the objects"):
                connection = self._writer = self._writer or self._open_writer()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    if connection.in_transaction:  # SQLite has ended it itself after some errors
                        connection.execute("ROLLBACK")
                    raise
            self._commit(connection)

    def close(self) -> None:
        with self._pool_lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            with translated("writing the index of the objects"):
                connection.execute("COMMIT")
        except StorageFailed as error:
            # SQLite still holds the transaction. The connection is given up with it, for its idea of the file
            # may be wrong now. A full disk is certain: the frame that would have committed was not written.
            self._writer = None
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            connection.close()
            if isinstance(error, OutOfSpace):
                raise
            raise CommitUncertain(str(error)) from error

    def _open_writer(self) -> sqlite3.Connection:
        connection = _connect(str(self._path))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'OFF'}")
        if _version(connection) == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        if _version(connection) != _VERSION:
            connection.close()
            raise StorageFailed(f"{self._path} was written by a newer version of this server")
        connection.execute(_ADDED)
        return connection

    def _borrow(self) -> sqlite3.Connection:
        with self._pool_lock:
            if self._idle:
                return self._idle.pop()
        return self._open_reader()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            self._idle.append(connection)

    def _open_reader(self) -> sqlite3.Connection:
        if self._path.exists():
            connection = _connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)
            if _version(connection) == _VERSION:
                return connection
            connection.close()
        raise NotMadeYet("there is no index of the objects yet")


def _connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        database, timeout=30.0, isolation_level=None, check_same_thread=False, uri=uri
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
