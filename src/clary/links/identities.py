"""The users, keys and roles that the gateways know: a file that control writes, whole, and they read.

Control writes it before it announces it on the route link, so it is there also when control is not. It holds
secret keys: mode 0600.
"""

import os
from pathlib import Path

import msgspec

from clary.domain.rights import Access
from clary.links.decoding import decode_json

VERSION = 1


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
    """Puts the file in place, whole or not at all, and still there after a power cut."""
    temporary = path(keys_dir).with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(identities))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path(keys_dir))
    directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(keys_dir: Path) -> Identities:
    """What was written last; nobody where nothing was. Raises OSError, msgspec.DecodeError."""
    try:
        return decode_json(path(keys_dir).read_bytes(), Identities)
    except FileNotFoundError:
        return Identities()
