"""What a TorchServe archive wants installed: the text of its manifest's `requirementsFile`.

Runs as a script in a process of its own (standard library only) with its memory limited, because the archive is a
stranger's zip file and its directory may be made to be anything. Only two members are read, and little of them.

    mar_requirements.py PATH     PATH: a `.mar` file, or a folder with MAR-INF/MANIFEST.json; prints
    {"name": …, "text": …}, {} where it wants nothing, or {"error": words}; always exits 0 when it could
"""

import json
import resource
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "MAR-INF/MANIFEST.json"
LARGEST_MANIFEST_BYTES = 1 << 20
LARGEST_REQUIREMENTS_BYTES = 64 << 10
MEMORY_BYTES = 512 << 20
WITHIN_S = 30.0


def archives_in(model: Path) -> list[Path]:
    """`.mar` files and unpacked archives in a model's root. Links are not followed: a stranger says where they lead."""
    if not model.is_dir():
        return []
    files = [path for path in model.glob("*.mar") if path.is_file() and not path.is_symlink()]
    places = (model, *(path for path in model.iterdir() if path.is_dir() and not path.is_symlink()))
    folders = [place for place in places if (place / MANIFEST).is_file() and _is_plain(place, MANIFEST)]
    return sorted((*files, *folders))


def read(archive: Path) -> dict[str, str]:
    """What the script below says of the archive."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(archive)],
            capture_output=True,
            timeout=WITHIN_S,
            env={"LANG": "C.UTF-8"},
            cwd="/",
            check=False,
        )
        answer: dict[str, str] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {"error": "it cannot be read within its limits"}
    return answer


def _wanted(archive: Path) -> dict[str, str]:
    manifest: Any = json.loads(_member(archive, MANIFEST, LARGEST_MANIFEST_BYTES))
    model = manifest.get("model") if isinstance(manifest, dict) else None
    name = model.get("requirementsFile") if isinstance(model, dict) else None
    if not name:
        return {}
    if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"its requirementsFile is {name!r}, which is no file of the archive")
    return {"name": name, "text": _member(archive, name, LARGEST_REQUIREMENTS_BYTES).decode("utf-8")}


def _member(archive: Path, name: str, most: int) -> bytes:
    if archive.is_dir():
        if not _is_plain(archive, name):
            raise ValueError(f"{name} leads out of the archive")
        with (archive / name).open("rb") as file:
            data = file.read(most + 1)
    else:
        with zipfile.ZipFile(archive) as members, members.open(name) as member:
            data = member.read(most + 1)
    if len(data) > most:
        raise ValueError(f"its {name} has more than {most:,} bytes")
    return data


def _is_plain(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _run(path: str) -> dict[str, str]:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return _wanted(Path(path))
    except MemoryError:
        return {"error": "reading it takes more memory than it may"}
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, ValueError, RuntimeError, EOFError) as error:
        return {"error": str(error) or type(error).__name__}


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1])))
