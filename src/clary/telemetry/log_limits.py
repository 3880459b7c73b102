"""Holding a log to its size while others write to it."""

import ctypes
import logging
import os
from pathlib import Path

from clary.telemetry.log_pages import StreamFile

log = logging.getLogger(__name__)

_PAGE = 4096
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def drop_oldest(path: Path, max_bytes: int) -> None:
    """Gives the oldest text's space back. A hole instead of a shorter file: offsets stay, and writers go on."""
    with StreamFile(path, 0) as file:
        if file.size - file.begin <= max_bytes:
            return
        drop = (file.size - max_bytes * 3 // 4) // _PAGE * _PAGE
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if _libc.fallocate(descriptor, _KEEP_SIZE_PUNCH_HOLE, 0, drop) != 0:
            reason = os.strerror(ctypes.get_errno())
            log.warning(
                "a log over its limit could not be shortened", extra={"path": str(path), "error": reason}
            )
    finally:
        os.close(descriptor)
