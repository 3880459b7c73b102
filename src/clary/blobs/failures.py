"""Where errors of the operating system and of SQLite become the family of `blobs.base`."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from clary.blobs.base import OutOfSpace, StorageFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Runs what touches the disk; `doing` says what, for the message."""
    try:
        yield
    except OSError as error:
        raise _of_os(doing, error) from error
    except sqlite3.Error as error:
        raise _of_sqlite(doing, error) from error


def _of_os(doing: str, error: OSError) -> StorageFailed:
    if error.errno in _FULL:
        return OutOfSpace(f"no space left while {doing}")
    return StorageFailed(f"{doing} failed: {error.strerror or error}")


def _of_sqlite(doing: str, error: sqlite3.Error) -> StorageFailed:
    # Errors that never reached SQLite carry no code.
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return OutOfSpace(f"no space left while {doing}")
    return StorageFailed(f"{doing} failed: {error}")
