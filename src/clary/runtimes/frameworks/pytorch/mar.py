"""TorchServe's archives: a `.mar` file, which is a zip, or the same unpacked, with `MAR-INF/MANIFEST.json`.

A `.mar` is unpacked inside the instance, into its own temporary directory and within its limits. Its members are a
stranger's: names that lead out, links, and more than an archive may hold are refused, as for tar archives.
"""

import json
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clary.runtimes.contract import LoadError

MANIFEST = "MAR-INF/MANIFEST.json"
MOST_MEMBERS = 100_000
MOST_BYTES = 64 << 30
HIGHEST_RATIO = 200
RATIO_FREE_BYTES = 64 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Archive:
    """An archive, unpacked. `model`: the manifest's part of that name."""

    directory: Path
    name: str
    manifest: Mapping[str, Any]
    model: Mapping[str, Any]


def find_archive(model_dir: Path) -> Archive | None:
    """The model's archive; None when it has none. Raises `LoadError`."""
    files = sorted(path for path in model_dir.glob("*.mar") if path.is_file())
    folders = [
        folder for folder in (model_dir, *sorted(model_dir.iterdir())) if (folder / MANIFEST).is_file()
    ]
    if not files and not folders:
        return None
    if len(files) + len(folders) > 1:
        names = ", ".join(path.name for path in (*files, *folders))
        raise LoadError(f"there is more than one TorchServe archive ({names}): one endpoint serves one model")
    if folders:
        return _read(folders[0], folders[0].name)
    target = Path(tempfile.mkdtemp(prefix="mar-"))
    try:
        unpack(files[0], target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise LoadError(f"{files[0].name} could not be unpacked: {error or type(error).__name__}") from error
    try:
        archive = _read(target, files[0].name)
    except LoadError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    # Workers are made of it as long as the model is there; a server of many models unloads it.
    weakref.finalize(archive, shutil.rmtree, target, ignore_errors=True)
    return archive


def unpack(path: Path, target: Path) -> None:
    """Raises `ValueError` for what is refused, and what `zipfile` raises."""
    with zipfile.ZipFile(path) as source:
        members = source.infolist()
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
        written = 0
        for member in members:
            place = target / _inside(member)
            if member.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with source.open(member) as content, place.open("wb") as file:
                written = _copy(content, file, written, path.stat().st_size)


def _inside(member: zipfile.ZipInfo) -> PurePosixPath:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or not name.parts:
        raise ValueError(f"{member.filename[:200]!r} leads out of the archive")
    mode = member.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
        raise ValueError(f"{member.filename[:200]!r} is no file, and only files may be in an archive")
    return name


def _copy(content: IO[bytes], file: IO[bytes], written: int, packed: int) -> int:
    """How much has been written with it. What a member says of its size counts for nothing."""
    while data := content.read(_CHUNK):
        written += len(data)
        if written > MOST_BYTES or written > max(RATIO_FREE_BYTES, packed * HIGHEST_RATIO):
            raise ValueError(f"it unpacks to more than {written:,} bytes")
        file.write(data)
    return written


def _read(directory: Path, name: str) -> Archive:
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        model = manifest["model"]
        if not isinstance(model["handler"], str):
            raise TypeError("model.handler is no text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LoadError(
            f"{MANIFEST} of {name} cannot be used ({type(error).__name__}: {error}): make the archive with "
            "torch-model-archiver, which writes it"
        ) from error
    for key in ("handler", "serializedFile", "modelFile", "configFile", "requirementsFile"):
        _check_path(name, key, model.get(key))
    return Archive(directory, name, manifest, model)


def _check_path(name: str, key: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
        raise LoadError(
            f"{MANIFEST} of {name} has a {key} that is no name of a file in the archive: {value!r}"
        )
