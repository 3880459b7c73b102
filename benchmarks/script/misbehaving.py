"""A user's script that does what a bad neighbour does. The request's text says what; bounded, where nothing else does.

`forks` is a fork bomb and ends with its instance only, so where nothing limits processes it must not be asked for.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

HOGS = 64
DISK_BYTES = 2 << 30
MEMORY_BYTES = 8 << 30
PIECE_BYTES = 64 << 20


def model_fn(model_dir: str) -> str:
    return model_dir


def input_fn(data: str, content_type: str) -> str:
    return data.strip()


def predict_fn(what: str, model_dir: str) -> str:
    return MISDEEDS[what](model_dir)


def output_fn(answer: str, accept: str) -> tuple[str, str]:
    return answer, "text/plain"


def _nothing(model_dir: str) -> str:
    return "nothing"


def _forks(model_dir: str) -> NoReturn:
    """Every process that comes into being does the same, and tries on when it is refused."""
    while True:
        try:
            os.fork()
        except OSError:
            continue


def _cpu(model_dir: str) -> NoReturn:
    _burn(lambda: None)


def _sessions(model_dir: str) -> NoReturn:
    """The same, and to a kernel that shares processors out among sessions each one is somebody new."""
    _burn(os.setsid)


def _burn(before: Callable[[], object]) -> NoReturn:
    for _ in range(HOGS):
        if os.fork() == 0:
            before()
            break
    while True:
        pass


def _memory(model_dir: str) -> str:
    """Fresh memory, every page written."""
    held: list[bytes] = []
    while len(held) * PIECE_BYTES < MEMORY_BYTES:
        held.append(b"x" * PIECE_BYTES)
    return f"nothing stopped {MEMORY_BYTES >> 30} GiB"


def _disk(model_dir: str) -> str:
    """Writes to each place until it is stopped or has written its share, and removes it so that it can go on."""
    return f"temporary files: {_fill(tempfile.gettempdir())}; model directory: {_fill(model_dir)}"


def _fill(place: str) -> str:
    path, piece, written = Path(place, f"filled-{os.getpid()}"), b"x" * PIECE_BYTES, 0
    share = min(DISK_BYTES, shutil.disk_usage(place).free // 2)
    try:
        with path.open("wb", buffering=0) as file:
            while written < share:
                written += file.write(piece)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with suppress(OSError):  # where it may not write, it was never there
            path.unlink()
    return f"nothing stopped {written >> 20:,} MiB"


MISDEEDS: dict[str, Callable[[str], str]] = {
    "nothing": _nothing,
    "forks": _forks,
    "cpu": _cpu,
    "sessions": _sessions,
    "memory": _memory,
    "disk": _disk,
}
