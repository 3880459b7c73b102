"""Images that were made of a requirements file: a file each, written by `clary image`, read by control and hosts.

    <data>/images/<name>.toml
        on = "sklearn"                      the framework it is made on
        requirements = ["lifelines"]        what was asked for
        packages = ["lifelines==0.30.0"]    what that came to, exactly: what every host installs

There is nothing to tell anybody: who resolves an image reads its file. It is replaced whole, by a rename.
"""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z0-9]+(?:[._-]{1,2}[a-z0-9]+)*")
LONGEST_NAME = 128


class ImageFileError(Exception):
    """A file that cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class OwnImage:
    """See above."""

    name: str
    on: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]


def is_name(name: str) -> bool:
    """Whether an image of one's own can have this name: a repository's, without a slash."""
    return len(name) <= LONGEST_NAME and NAME.fullmatch(name) is not None


def read(directory: Path, name: str) -> OwnImage | None:
    """None when there is none. Raises `ImageFileError`."""
    if not is_name(name):
        return None
    path = _path(directory, name)
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImageFileError(f"{path} cannot be read: {error}") from error
    on, lists = values.get("on"), [values.get(key) for key in ("requirements", "packages")]
    if not isinstance(on, str) or not all(isinstance(each, list) for each in lists):
        raise ImageFileError(f"{path} lacks on, requirements or packages: make it anew with clary image make")
    requirements, packages = (tuple(map(str, each or ())) for each in lists)
    return OwnImage(name, on, requirements, packages)


def names(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in directory.glob("*.toml") if is_name(path.stem)))


def write(directory: Path, image: OwnImage) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _path(directory, image.name)
    part = path.with_suffix(".part")
    lines = [f"{key} = {json.dumps(getattr(image, key))}\n" for key in ("on", "requirements", "packages")]
    with part.open("w") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def remove(directory: Path, name: str) -> bool:
    """Whether there was one."""
    if not is_name(name) or not _path(directory, name).exists():
        return False
    _path(directory, name).unlink()
    return True


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.toml"
