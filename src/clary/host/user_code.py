"""What the host must know of a script of the user's before it starts one: that there is one, its source, its packages.

The host never runs any of it. It reads `requirements.txt`, which is someone else's text: what it may say is what
names packages and where to get them. Nothing in it may name a file of this machine, and packages come as wheels
only, because building one runs its code, here, outside of any instance.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from clary.domain.instances import Artifact, InstanceSpec
from clary.host import mar_requirements
from clary.host.failures import Refused

SOURCE = "/opt/ml/code"
MODEL = "opt/ml/model"
MODEL_CODE = "/opt/ml/model/code"
DEFAULT_PROGRAM = "inference.py"
LARGEST_REQUIREMENTS_BYTES = 64 << 10
DEEPEST = 5

_DIRECTORY, _PROGRAM = "SAGEMAKER_SUBMIT_DIRECTORY", "SAGEMAKER_PROGRAM"
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]*(?P<name>\S+)$")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url)[ =]+https?://\S+$|--pre$|--prefer-binary$")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\]\s*)?(?:[<>=!~(;@]|$)")
_ADDRESS = re.compile(r"@(?!\s*https://)")
_VARIABLE = re.compile(r"\$\{")
"""uv would put in what this machine's variables hold, such as the password of its index."""


def with_source(spec: InstanceSpec) -> InstanceSpec:
    """The instance with its source directory as an artefact, when that is an archive in a bucket."""
    uri = spec.environment.get(_DIRECTORY, "")
    if not uri.startswith("s3://"):
        return spec
    return replace(
        spec,
        environment={**spec.environment, _DIRECTORY: SOURCE},
        artifacts=(*spec.artifacts, Artifact(uri, SOURCE, "archive")),
    )


def is_announced(spec: InstanceSpec) -> bool:
    """Whether the environment says already that there is a script."""
    return bool(spec.environment.get(_PROGRAM))


def is_there(spec: InstanceSpec, directory: Path) -> bool:
    """Whether there is a script, or a TorchServe archive with a handler, once the artefacts are placed."""
    return (
        is_announced(spec)
        or any((folder / DEFAULT_PROGRAM).is_file() for folder in _folders(spec, directory))
        or bool(mar_requirements.archives_in(directory / MODEL))
    )


def requirements_of(spec: InstanceSpec, directory: Path, packages: str = "") -> str:
    """What the script wants installed, in lines that are safe to hand to uv; empty for nothing. Raises `Refused`.

    A folder named `packages` beside the script holds all it needs already.
    """
    for folder in _folders(spec, directory):
        if packages and (folder / packages).is_dir():
            return ""
        if (folder / "requirements.txt").is_file():
            return "".join(f"{line}\n" for line in _lines(folder, "requirements.txt", 0))
    return "".join(map(_archive_requirements, mar_requirements.archives_in(directory / MODEL)[:1]))


def _archive_requirements(archive: Path) -> str:
    """What the manifest of a TorchServe archive asks for. Raises `Refused`."""
    found = mar_requirements.read(archive)
    if "error" in found:
        raise _refused(f"the requirementsFile of {archive.name}", found["error"])
    lines = checked_lines(archive.parent, found.get("name", ""), found.get("text", "").splitlines())
    return "".join(f"{line}\n" for line in lines)


def _folders(spec: InstanceSpec, directory: Path) -> list[Path]:
    named = spec.environment.get(_DIRECTORY, "")
    places = [named] if re.fullmatch(r"/opt/ml(/[\w.-]+)+", named) and ".." not in named else []
    return [directory / place.lstrip("/") for place in dict.fromkeys((*places, MODEL_CODE))]


def _lines(folder: Path, name: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise _refused(name, "its files include one another")
    yield from checked_lines(folder, name, text_of(folder, name).replace("\\\n", " ").splitlines(), depth)


def checked_lines(folder: Path, name: str, lines: Iterable[str], depth: int = 0) -> Iterator[str]:
    """What the file of that name says in these lines, as far as it may be handed to uv. Raises `Refused`."""
    for line in lines:
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not line:
            continue
        if include := _INCLUDE.match(line):
            yield from _lines(folder, include["name"], depth + 1)
        elif _is_harmless(line):
            yield line
        else:
            raise _refused(
                name,
                f"{line[:80]!r} is not supported here: give packages of an index, by name or https address, and "
                "--index-url or --extra-index-url, without ${…}",
            )


def _is_harmless(line: str) -> bool:
    if _VARIABLE.search(line):
        return False
    return bool(_INDEX.match(line)) or bool(_PACKAGE.match(line) and not _ADDRESS.search(line))


def text_of(folder: Path, name: str) -> str:
    """Raises `Refused`."""
    path = folder / name
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise _refused(name, "there is no such file beside the script")
    if path.stat().st_size > LARGEST_REQUIREMENTS_BYTES:
        raise _refused(name, f"it has more than {LARGEST_REQUIREMENTS_BYTES:,} bytes")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(name, "it is no UTF-8 text") from error


def _refused(name: str, what: str) -> Refused:
    return Refused("EnvironmentFailed", f"{name} cannot be installed: {what}")
