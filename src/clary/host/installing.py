"""One build of an environment, by uv: a virtual environment, what it may be made of, and where that comes from.

Before anything large is fetched uv says what it would install. Two things are decided by that:

- *where from*. A framework may name indexes of its own (`indexes` in the manifest: PyPI has torch with CUDA only). What
  the machine is told to use comes first, and they are tried when it does not have what the lock wants. What is
  installed on top later takes the same way;
- *whether at all*. Packages for CUDA are gigabytes, and of no use without a GPU: they are refused by name, or taken
  as built for CPUs where the usual index of such builds can be reached. Packages with a build of their own in their
  version (`torch 2.13.0+cpu`) stay what they are whatever a user's requirements ask for on top.
"""

import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from clary.catalog import Manifest
from clary.host.sizes import size_bytes

BUILDER_VERSION = "1"
LAST_LINES = 12
SIZE = ".size"
"""Beside `.ready`: the bytes of an environment, in figures."""

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""Where torch and its relatives are built for CPUs."""

_WOULD_INSTALL = re.compile(r"^\+ (?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+)| @ \S+)", re.MULTILINE)
_CUDA = re.compile(r"(nvidia-(cu|nvjitlink|nvshmem|nvtx)|cuda-|cupy|tensorrt|triton$|pytorch-triton)")
_MOST_NAMES = 4

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class EnvironmentFailed(Exception):
    """An environment could not be built. The message says why in uv's words, and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where packages come from: uv's variables, and the indexes among them that are a framework's own."""

    variables: Mapping[str, str]
    indexes: tuple[str, ...] = ()

    def with_indexes(self, indexes: Sequence[str]) -> "Source":
        known = self.variables.get("UV_INDEX", "").split()
        added = tuple(index for index in indexes if index not in known)
        variables = {**self.variables, "UV_INDEX": " ".join((*added, *known))}
        return Source(variables, (*self.indexes, *added))


class Build:
    """One build, under the lock whose descriptor uv inherits. Raises `EnvironmentFailed`."""

    def __init__(
        self, manifest: Manifest, source: Source, *, allows_cuda: bool, lock: int, progress: Progress
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._allows_cuda = allows_cuda
        self._lock = lock
        self._progress = progress

    def run(self, directory: Path) -> None:
        """What the framework's lock says."""
        lock = self._manifest.directory / self._manifest.lock
        wanted = ("--require-hashes", "--requirement", str(lock))
        sources = [self._source]
        if self._manifest.indexes and not self._source.indexes:
            sources.append(self._source.with_indexes(self._manifest.indexes))
        with _Fresh(directory):
            self._make(directory)
            source = sources[0] if len(sources) == 1 else self._first_that_has(sources, directory, wanted)
            self._install(source, directory, wanted)
            _mark_ready(directory, source.indexes)

    def run_on_top(self, directory: Path, base: Path, requirements: str) -> None:
        """The `base` environment with a user's requirements. Nothing is built from source: see `user_code`."""
        text = directory.parent / f"{directory.name}.txt"
        pins = directory.parent / f"{directory.name}.pins"
        text.write_text(requirements)
        pins.write_text("".join(f"{name}=={version}\n" for name, version in special_builds(base)))
        wanted: tuple[str, ...] = ("--only-binary", ":all:", "--requirement", str(text))
        try:
            with _Fresh(directory):
                self._make(directory, base)
                source = self._source.with_indexes(_indexes_of(base))
                source, wanted = self._without_cuda(source, directory, wanted, str(pins))
                self._install(source, directory, wanted)
                _drop_stale_bytecode(base, directory)
                _mark_ready(directory, source.indexes)
        except EnvironmentFailed as error:
            raise EnvironmentFailed(f"requirements.txt could not be installed: {error}") from error
        finally:
            text.unlink(missing_ok=True)
            pins.unlink(missing_ok=True)

    def _make(self, directory: Path, base: Path | None = None) -> None:
        name = self._manifest.name
        log.info("building an environment", extra={"framework": name, "directory": str(directory)})
        self._progress(f"building the {name} environment")
        self._uv(self._source, "venv", "--no-project", "--python", sys.executable, str(directory))
        if base is not None:
            _link_packages(base, directory)

    def _install(self, source: Source, directory: Path, wanted: Sequence[str]) -> None:
        self._uv(source, *_pip_install(directory), "--compile-bytecode", *wanted)
        log.info(
            "an environment is ready",
            extra={"framework": self._manifest.name, "directory": str(directory)},
        )

    def _first_that_has(self, sources: Sequence[Source], directory: Path, wanted: Sequence[str]) -> Source:
        failures = []
        for source in sources:
            try:
                self._would_install(source, directory, wanted)
                return source
            except EnvironmentFailed as error:
                where = ", ".join(source.indexes) or "the indexes of this machine"
                failures.append(f"{str(error).removesuffix(self._advice)} (with {where})")
        raise EnvironmentFailed("; then ".join(failures) + self._advice)

    def _without_cuda(
        self, source: Source, directory: Path, wanted: tuple[str, ...], pins: str
    ) -> tuple[Source, tuple[str, ...]]:
        """A way to install it that brings no CUDA; any way where CUDA may come. The base's special builds stay where
        the requirements allow it.
        """
        pinned = (*wanted, "--constraint", pins)
        found: tuple[str, ...] = ()
        failure: EnvironmentFailed | None = None
        for each in (source, source.with_indexes((CPU_BUILDS,))):
            for arguments in (pinned, wanted):
                try:
                    found = cuda_among(self._would_install(each, directory, arguments))
                except EnvironmentFailed as error:
                    failure = failure or error
                    continue
                if not found or self._allows_cuda:
                    return each, arguments
            if not found:
                break  # it cannot be resolved, with CUDA or without
        if found:
            raise EnvironmentFailed(_no_cuda(found, Path(pins).read_text().split(), self._manifest.name))
        assert failure is not None, "nothing was found, so that it failed"
        raise failure

    def _would_install(self, source: Source, directory: Path, wanted: Sequence[str]) -> list[tuple[str, str]]:
        """Names and versions, without fetching them."""
        told = self._uv(source, *_pip_install(directory), "--dry-run", *wanted, keep=True)
        return [(found["name"].lower(), found["version"] or "") for found in _WOULD_INSTALL.finditer(told)]

    @property
    def _advice(self) -> str:
        return (
            ". Check that the package index can be reached (UV_DEFAULT_INDEX, proxy variables, or the settings "
            f"index_urls and find_links for {self._manifest.name}) and that the disk has room, then try again"
        )

    def _uv(self, source: Source, *arguments: str, keep: bool = False) -> str:
        """What uv says, all of it where that is to be read."""
        lines: deque[str] = deque(maxlen=None if keep else LAST_LINES)
        name = self._manifest.name
        with subprocess.Popen(
            [uv.find_uv_bin(), "--no-config", *arguments],
            env=dict(source.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(self._lock,),
        ) as process:
            assert process.stdout is not None, "it was asked for"
            for line in process.stdout:
                if line := line.strip():
                    lines.append(line)
                    self._progress(f"building the {name} environment: {line[:200]}")
        if process.returncode != 0:
            last = list(lines)[-LAST_LINES:]
            raise EnvironmentFailed(
                f"uv {' '.join(arguments[:2])} ended with {process.returncode}: {' | '.join(_complaint(last))}"
                f"{self._advice}"
            )
        return "\n".join(lines)


class _Fresh:
    """The directory, empty at first, and gone again when something is raised."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)  # what is left of a build that was cut off

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def cuda_among(packages: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Those that are there for CUDA. torch without a build in its version is the one with CUDA on this processor."""
    plain_is_cuda = platform.machine() == "x86_64"
    return tuple(
        f"{name}=={version}"
        for name, version in packages
        if _CUDA.match(name.replace("_", "-"))
        or (name == "torch" and ("+cu" in version or ("+" not in version and plain_is_cuda)))
    )


def special_builds(environment: Path) -> list[tuple[str, str]]:
    """What is installed with a build in its version, such as `+cpu`."""
    folders = environment.glob("lib/python*/site-packages/*+*.dist-info")
    found = [folder.name.removesuffix(".dist-info").rpartition("-") for folder in folders]
    return sorted((name, version) for name, _, version in found)


def _no_cuda(found: Sequence[str], pins: Sequence[str], framework: str) -> str:
    found = sorted(found, key=lambda each: not each.startswith("torch"))
    more = f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
    have = (
        f"{', '.join(pins)} is there already: leave it out of requirements.txt. Otherwise"
        if pins
        else "To go on"
    )
    return (
        f"it would bring {', '.join(found[:_MOST_NAMES])}{more}: gigabytes for CUDA, which this machine without a GPU "
        f"cannot use. {have} ask for a build for CPUs (a version with +cpu, and --extra-index-url {CPU_BUILDS}), or "
        f'set find_links or index_urls of {framework} to a place that has it; the setting cuda = "yes" installs CUDA '
        "all the same"
    )


def _pip_install(directory: Path) -> tuple[str, ...]:
    return ("pip", "install", "--python", str(directory / "bin" / "python"))


def _complaint(told: Sequence[str]) -> Sequence[str]:
    """From where uv says what is wrong; all of it when it does not."""
    begin = next((number for number, line in enumerate(told) if line.startswith(("×", "error:"))), 0)
    return told[begin:]


def _link_packages(base: Path, directory: Path) -> None:
    """What is installed in one environment into another, without copying: installers replace files, never write
    into them.
    """
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": "", "platbase": ""}).lstrip("/"))
    shutil.copytree(base / packages, directory / packages, copy_function=os.link, dirs_exist_ok=True)


def _drop_stale_bytecode(base: Path, directory: Path) -> None:
    """Removes bytecode that is the base's where the source is not.

    Bytecode counts as fresh when time and size of its source fit, and two versions of a file in wheels that were
    built reproducibly have the same time, often the same size too.
    """
    for compiled in directory.glob("lib/python*/site-packages/**/__pycache__/*.pyc"):
        source = compiled.parent.parent / f"{compiled.name.split('.', 1)[0]}.py"
        before = base / source.relative_to(directory)
        old = base / compiled.relative_to(directory)
        are_there = source.exists() and before.exists() and old.exists()
        if are_there and compiled.samefile(old) and not source.samefile(before):
            compiled.unlink()


def _mark_ready(directory: Path, indexes: Sequence[str]) -> None:
    (directory / SIZE).write_text(str(size_bytes(directory)))
    with (directory / ".ready").open("w") as file:
        file.write("\n".join((BUILDER_VERSION, *indexes)))
        file.flush()
        os.fsync(file.fileno())


def _indexes_of(directory: Path) -> list[str]:
    """The framework's own indexes that a finished environment was built with."""
    return (directory / ".ready").read_text().splitlines()[1:]
