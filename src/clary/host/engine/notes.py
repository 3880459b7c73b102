"""What a runner writes down of its container, in `container.json` of the instance's directory.

First when the container runs, so that the host knows its processes; again when it has ended, because what the engine
knows of an end goes with the container.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "container.json"


@dataclass(frozen=True, slots=True)
class Note:
    """`pid` is the container's first process as this machine sees it. `refused`: why the engine did not start it.

    `layer`: the directory of what it writes beside its mounts, where the engine says one. `limits_memory`: the engine
    holds it to its memory.
    """

    container: str = ""
    pid: int = 0
    start_time: int = 0
    exit_code: int | None = None
    out_of_memory: bool = False
    refused: str = ""
    removed: bool = False  # nothing of it is left with the engine
    layer: str = ""
    limits_memory: bool = False


def read(directory: Path) -> Note | None:
    try:
        values: Mapping[str, object] = json.loads(_content(directory / FILE))
        note = Note(**values)  # type: ignore[arg-type]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        return None  # no runner's: on rung 0 an instance can write here itself
    return note if isinstance(note.pid, int) and isinstance(note.layer, str) else None


def _content(path: Path) -> bytes:
    """Never waits: on rung 0 an instance may have put a pipe there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read() or b""


def first_process(directory: Path) -> int | None:
    """The container's first process, if this instance has a container."""
    note = read(directory)
    return None if note is None or note.pid <= 0 else note.pid


def write(directory: Path, note: Note) -> None:
    temporary = directory / f".{FILE}"
    temporary.write_text(json.dumps(asdict(note)))
    temporary.rename(directory / FILE)
