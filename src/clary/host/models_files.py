"""The models of one instance on the disk.

    <instance>/opt/ml/models/<name>/model   what the archive unpacked to: the container sees it, read-only
    <instance>/model-notes/<name>.json      what it is of, for a host that comes after this one
    <instance>/model-parts/                 under way

A model appears by a rename, after its note, so one without a note counts for nothing; it goes by a rename as well, so
that none is ever there in part. Every instance has files of its
own: what one evicts another may be reading. Only archives become models, as on SageMaker, and they are unpacked by
the same limited process as any other.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec

from clary.host import archives
from clary.host.artifacts import let_read
from clary.host.unpacking import Unpacker
from clary.links.decoding import decode_json

MODELS = "opt/ml/models"
NOTES = "model-notes"
PARTS = "model-parts"
CONTENT = "model"
MULTI_MODEL = "SAGEMAKER_MULTI_MODEL"
"""What tells a container that it is to hold many models."""


@dataclass(frozen=True, slots=True)
class Note:
    """What lies on the disk."""

    name: str
    target_model: str
    etag: str
    size_bytes: int
    fetched_at: float  # seconds since the epoch
    is_pinned: bool = False


def make_place(directory: Path) -> Path:
    """The directory that the instance finds at `/opt/ml/models`. May be repeated."""
    place = directory / MODELS
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    return place


class ModelFiles:
    """Of one instance. Names are the host's own, so they can be file names."""

    def __init__(self, directory: Path, unpacker: Unpacker, limits: archives.Limits) -> None:
        self._models = make_place(directory)
        self._notes = directory / NOTES
        self._parts = directory / PARTS
        self._unpacker = unpacker
        self._limits = limits
        self._numbers = count()
        self._notes.mkdir(mode=0o700, exist_ok=True)
        self._parts.mkdir(mode=0o700, exist_ok=True)

    def fetch(self, source: str, timeout_s: float) -> tuple[Path, int]:
        """Unpacks an archive: a part to `place` or to `drop`, and its size. Raises `Unpackable`, `OSError`."""
        part = Path(tempfile.mkdtemp(dir=self._parts))
        try:
            (part / CONTENT).mkdir()
            done = self._unpacker.unpack(source, part / CONTENT, self._limits, timeout_s)
            let_read(part)
        except BaseException:
            self.drop(part)
            raise
        return part, done.size_bytes

    def place(self, part: Path, name: str) -> None:
        """After its note, and what was there before has been put away."""
        part.rename(self._models / name)

    def put_away(self, name: str) -> None:
        """All of it at once: what is left of it after a crash is not taken for a model."""
        # No new folder: the disk may be full. And no name of an earlier host's, should some of that be left.
        names = (self._parts / f"gone-{number}" for number in self._numbers)
        gone = next(path for path in names if not path.exists())
        with suppress(FileNotFoundError):
            (self._models / name).rename(gone)
        self.drop(gone)

    def note(self, note: Note) -> None:
        temporary = self._notes / f".{note.name}"
        temporary.write_bytes(msgspec.json.encode(note))
        temporary.rename(self._note_file(note.name))

    def has(self, name: str) -> bool:
        return (self._models / name).is_dir()

    def content(self, name: str) -> Path:
        return self._models / name / CONTENT

    def remove(self, name: str) -> None:
        """The note last: what is left without it would never be found again."""
        self.put_away(name)
        self._note_file(name).unlink(missing_ok=True)

    def drop(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def recover(self) -> Iterator[Note]:
        """What an earlier host left; what it had not finished goes."""
        self.drop(self._parts)
        # A process that the earlier host had unpack may not have noticed yet that nobody waits, and be at it still.
        self._parts.mkdir(mode=0o700, exist_ok=True)
        found = {note.name: note for note in self._read_notes()}
        for name in os.listdir(self._models):  # noqa: PTH208
            if name not in found:
                self.drop(self._models / name)
        for note in found.values():
            if self.has(note.name):
                yield note
            else:
                self._note_file(note.name).unlink(missing_ok=True)

    def _read_notes(self) -> Iterator[Note]:
        for path in self._notes.glob("*.json"):
            with suppress(FileNotFoundError, msgspec.DecodeError):
                yield decode_json(path.read_bytes(), Note)

    def _note_file(self, name: str) -> Path:
        return self._notes / f"{name}.json"
