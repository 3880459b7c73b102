"""A uid for each instance of a host that was started as root, out of a range that nobody else uses.

The record is the owner of the instance's `tmp`: it lives and goes with the directory, whatever becomes of the host.
"""

import os
import threading
import zlib
from pathlib import Path

from clary.host.failures import Refused


class Uids:
    """Thread-safe. Two servers on one machine begin at different places of the range, by their directories."""

    def __init__(self, instances: Path, base: int, count: int) -> None:
        self._instances = instances
        self._range = range(base, base + count)
        self._lock = threading.Lock()

    def take(self, directory: Path) -> int:
        """The uid of the instance in this directory, the same one every time. Raises `Refused`."""
        with self._lock:
            own = _owner(directory)
            if own in self._range:
                return own
            used = {_owner(other) for other in self._instances.iterdir()}
            first = zlib.crc32(os.fsencode(directory)) % len(self._range)
            for step in range(len(self._range)):
                uid = self._range[(first + step) % len(self._range)]
                if uid not in used:
                    (directory / "tmp").mkdir(mode=0o700, exist_ok=True)
                    os.chown(directory / "tmp", uid, uid)
                    return uid
        raise Refused("StartFailed", f"all {len(self._range)} uids from {self._range[0]} on are in use")


def _owner(directory: Path) -> int:
    try:
        return (directory / "tmp").stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return -1
