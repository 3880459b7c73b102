"""The users, keys and roles that the gateways know: a file that control writes, whole, and they read.

Control writes it before it announces it on the route link, so it is there also when control is not. It holds
secret keys: mode 0600.

Beside it lies a spare file of the same size, for a full disk: there what is deleted must stop counting, too. The new
content is written over the spare, and the two change places. So deletions find room again and again, and nobody
else can take it. Otherwise every file is a new one. The spare may still be read by who began when it was in force: he
sees that it is not any more, and begins again.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from clary.domain.rights import Access
from clary.links import free_room
from clary.links.decoding import decode_json

VERSION = 1

_BLOCK = 512
_TRIES = 10

log = logging.getLogger(__name__)


class UserKey(msgspec.Struct, frozen=True):
    """An active access key of a user."""

    access_key_id: str
    secret_access_key: str
    user_arn: str


class Identities(msgspec.Struct, frozen=True):
    version: int = VERSION
    keys: tuple[UserKey, ...] = ()
    accesses: tuple[Access, ...] = ()


def path(keys_dir: Path) -> Path:
    return keys_dir / "identities.json"


def write(keys_dir: Path, identities: Identities) -> None:
    """Puts the file in place, whole or not at all, and still there after a power cut. Raises OSError."""
    place, spare = path(keys_dir), _spare(keys_dir)
    content = msgspec.json.encode(identities)
    try:
        _put_anew(place, content)
    except OSError as error:
        if error.errno not in free_room.NO_ROOM:
            raise
        _put_in_spare(place, spare, content)
    directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    _hold(spare, len(content))


def read(keys_dir: Path) -> Identities:
    """What was written last; nobody where nothing was. Raises OSError, msgspec.DecodeError."""
    try:
        return decode_json(_whole(path(keys_dir)), Identities)
    except FileNotFoundError:
        return Identities()


def _whole(place: Path) -> bytes:
    """Who was overtaken, so that what he reads is the spare by now and written over, reads what is in force then."""
    for _ in range(_TRIES):
        with place.open("rb") as file:
            begun = os.fstat(file.fileno())
            content = file.read()
        ended = place.stat()
        if (begun.st_ino, begun.st_mtime_ns) == (ended.st_ino, ended.st_mtime_ns):
            break
    return content


def _spare(keys_dir: Path) -> Path:
    return path(keys_dir).with_suffix(".spare")


def _put_anew(place: Path, content: bytes) -> None:
    temporary = place.with_suffix(".new")
    try:
        _write(temporary, content)
        temporary.rename(place)
    except OSError:
        with suppress(OSError):  # what it took is wanted
            temporary.unlink()
        raise


def _put_in_spare(place: Path, spare: Path, content: bytes) -> None:
    """The file that was in force is the next spare, under a third name meanwhile: there is a file at any instant."""
    before = place.with_suffix(".old")
    if before.exists() and not spare.exists():  # of a process that was killed before its last step
        before.rename(spare)
    _write(spare, content)
    before.unlink(missing_ok=True)  # of one that was killed between the next two
    with suppress(FileNotFoundError):
        before.hardlink_to(place)
    spare.rename(place)
    with suppress(FileNotFoundError):
        before.rename(spare)


def _write(place: Path, content: bytes) -> None:
    """Over what the file has, so that it needs no more room than it must."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hold(spare: Path, size: int) -> None:
    """Best effort: without a spare a deletion is told on a full disk that it may not count everywhere yet."""
    try:
        descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_blocks * _BLOCK < size:
                os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.warning("no room is held back for the file of users and roles", extra={"error": str(error)})
