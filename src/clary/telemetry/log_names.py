"""Log groups' and streams' names as file names: reversible, one component each, never a way out of the directory.

Ordinary names are percent-encoded. One that would be too long for a file system is hashed, and the name itself put
in a file beside (`HASH.name`).
"""

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

LONGEST = 200  # leaves room for our suffixes within the 255 bytes a file name may have

_HASHED = "~"


def encode(name: str) -> str:
    """The file name for `name`; equal names give equal files, different ones different files."""
    encoded = quote(name, safe="")
    if encoded[:1] in (".", _HASHED):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if len(encoded) > LONGEST:
        return _HASHED + hashlib.sha256(name.encode()).hexdigest()
    return encoded


def remember(directory: Path, name: str) -> str:
    """`encode`, and what `decode` needs to find the name again."""
    encoded = encode(name)
    if encoded.startswith(_HASHED) and decode(directory, encoded) is None:
        # In one step, for those who look meanwhile; and again when the machine died in the middle of it.
        descriptor, temporary = tempfile.mkstemp(".new", encoded, directory)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(name)
        Path(temporary).rename(directory / f"{encoded}.name")
    return encoded


def decode(directory: Path, encoded: str) -> str | None:
    """The name behind a file name in `directory`; None when it is none of ours."""
    if not encoded.startswith(_HASHED):
        return unquote(encoded)
    try:
        name = (directory / f"{encoded}.name").read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return name if encode(name) == encoded else None  # half written when the machine died
