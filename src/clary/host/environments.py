"""Virtual environments of the frameworks, built once by uv and shared by all data directories of a user.

An environment is named by what is in it: the hash of its lock, the Python, the platform and this builder. It is
built where it stays (a virtual environment does not like to move) and counts only when its `.ready` file is there,
which is written last. A file lock lets one builder at a time work on it, over all hosts; uv inherits the lock, so
that a uv which outlived its host cannot write into a second build.

The requirements of a user's script make an environment of their own: the framework's, as hard links, and what they
ask for on top, as wheels only. It is named by the framework's and by their text.

    <cache_dir>/environments/<name>-<key>/    the environment, with `.ready`
    <cache_dir>/environments/<name>-<key>.lock

Only a build needs the network. What does not work out raises `EnvironmentFailed`, and a later call tries again.
"""

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uv

from clary.catalog import Manifest
from clary.host.package_indexes import uv_variables
from clary.host.sizes import size_bytes

BUILDER_VERSION = "1"
LAST_LINES = 12

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class EnvironmentFailed(Exception):
    """An environment could not be built. The message says why in uv's words, and what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A built environment. `key` names its content; `python` runs in it."""

    name: str
    key: str
    python: Path


class Environments:
    """Builds and finds environments. Thread-safe: who asks for one being built waits for it."""

    def __init__(self, root: Path, index_urls: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._root = root
        self._index_urls = index_urls
        self._environ = environ
        self._locks: dict[str, threading.Lock] = {}
        self._building: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()

    def ready(self, manifest: Manifest, requirements: str = "") -> Environment | None:
        """The environment when it is built; never builds."""
        environment = self._describe(manifest, requirements)
        if manifest.environment == "host" and not requirements:
            return environment
        return environment if (self._directory(environment) / ".ready").exists() else None

    def obtain(self, manifest: Manifest, progress: Progress, requirements: str = "") -> Environment:
        """The environment, built first where need be. May take minutes; `progress` hears how far it is."""
        if (found := self.ready(manifest, requirements)) is not None:
            return found
        if requirements and manifest.environment == "host":
            raise EnvironmentFailed(
                f"{manifest.name} runs in the server's own Python and takes no requirements"
            )
        base = self.obtain(manifest, progress) if requirements else None
        environment = self._describe(manifest, requirements)
        with self._one_at_a_time(environment.key, progress):
            if self.ready(manifest, requirements) is None:
                try:
                    self._build(manifest, environment, progress, base, requirements)
                    self._failed.pop(environment.key, None)
                except EnvironmentFailed as error:
                    self._failed[environment.key] = str(error)
                    raise
        return environment

    def progress_of(self, manifest: Manifest) -> str | None:
        """What the build under way does just now; None when there is none."""
        return self._building.get(self._describe(manifest).key)

    def failure_of(self, manifest: Manifest) -> str | None:
        """Why the newest build failed, while no later one succeeded."""
        return self._failed.get(self._describe(manifest).key)

    def size_bytes(self, manifest: Manifest) -> int:
        if manifest.environment == "host":
            return 0
        return size_bytes(self._directory(self._describe(manifest)))

    def _describe(self, manifest: Manifest, requirements: str = "") -> Environment:
        key = environment_key(manifest, requirements)
        if manifest.environment == "host" and not requirements:
            return Environment(manifest.name, key, Path(sys.executable))
        directory = self._root / f"{manifest.name}-{key[:16]}"
        return Environment(manifest.name, key, directory / "bin" / "python")

    def _directory(self, environment: Environment) -> Path:
        return environment.python.parent.parent

    @contextmanager
    def _one_at_a_time(self, key: str, progress: Progress) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(blocking=False):
            progress("waiting for its environment, which is being built")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(
        self,
        manifest: Manifest,
        environment: Environment,
        progress: Progress,
        base: Environment | None,
        requirements: str,
    ) -> None:
        directory = self._directory(environment)
        directory.parent.mkdir(parents=True, exist_ok=True)

        def tell(text: str) -> None:
            self._building[environment.key] = text
            progress(text)

        try:
            with (directory.parent / f"{directory.name}.lock").open("w") as lock_file:
                tell(f"waiting for the lock of the {manifest.name} environment")
                fcntl.flock(lock_file, fcntl.LOCK_EX)
                if self.ready(manifest, requirements) is None:  # another host may have built it meanwhile
                    build = _Build(self._variables(manifest), lock_file.fileno(), tell)
                    if base is None:
                        build.run(manifest, directory)
                    else:
                        build.run_on_top(manifest, directory, self._directory(base), requirements)
        except OSError as error:
            raise EnvironmentFailed(
                f"the {manifest.name} environment could not be built in {directory.parent}: {error}"
            ) from error
        finally:
            self._building.pop(environment.key, None)

    def _variables(self, manifest: Manifest) -> dict[str, str]:
        variables = uv_variables(self._environ)
        if index := self._index_urls.get(manifest.name):
            variables["UV_DEFAULT_INDEX"] = index
        return variables


class _Build:
    """One build, by uv, under the lock whose descriptor uv inherits."""

    def __init__(self, variables: Mapping[str, str], lock: int, progress: Progress) -> None:
        self._variables = variables
        self._lock = lock
        self._progress = progress

    def run(self, manifest: Manifest, directory: Path) -> None:
        lock = manifest.directory / manifest.lock
        self._make(manifest, directory, "--require-hashes", "--requirement", str(lock))

    def run_on_top(self, manifest: Manifest, directory: Path, base: Path, requirements: str) -> None:
        """The `base` environment with a user's requirements. Nothing is built from source: see `user_code`."""
        wanted = directory.parent / f"{directory.name}.txt"
        wanted.write_text(requirements)
        try:
            self._make(manifest, directory, "--only-binary", ":all:", "--requirement", str(wanted), base=base)
        except EnvironmentFailed as error:
            raise EnvironmentFailed(f"requirements.txt could not be installed: {error}") from error
        finally:
            wanted.unlink(missing_ok=True)

    def _make(self, manifest: Manifest, directory: Path, *wanted: str, base: Path | None = None) -> None:
        log.info("building an environment", extra={"framework": manifest.name, "directory": str(directory)})
        self._progress(f"building the {manifest.name} environment")
        shutil.rmtree(directory, ignore_errors=True)  # what is left of a build that was cut off
        try:
            self._uv(manifest, "venv", "--no-project", "--python", sys.executable, str(directory))
            if base is not None:
                _link_packages(base, directory)
            python = str(directory / "bin" / "python")
            self._uv(manifest, "pip", "install", "--python", python, "--compile-bytecode", *wanted)
            if base is not None:
                _drop_stale_bytecode(base, directory)
            _mark_ready(directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        log.info("an environment is ready", extra={"framework": manifest.name, "directory": str(directory)})

    def _uv(self, manifest: Manifest, *arguments: str) -> None:
        lines: deque[str] = deque(maxlen=LAST_LINES)
        with subprocess.Popen(
            [uv.find_uv_bin(), "--no-config", *arguments],
            env=dict(self._variables),
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
                    self._progress(f"building the {manifest.name} environment: {line[:200]}")
        if process.returncode != 0:
            raise EnvironmentFailed(
                f"uv {' '.join(arguments[:2])} ended with {process.returncode}: {' | '.join(_complaint(lines))}. "
                f"Check that the package index can be reached (UV_DEFAULT_INDEX, proxy variables, or the setting "
                f"index_urls for {manifest.name}) and that the disk has room, then try again"
            )


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


def _complaint(lines: Iterable[str]) -> list[str]:
    """From where uv says what is wrong; all of it when it does not."""
    told = list(lines)
    begin = next((number for number, line in enumerate(told) if line.startswith(("×", "error:"))), 0)
    return told[begin:]


def environment_key(manifest: Manifest, requirements: str = "") -> str:
    """The name of an environment's content: 64 hex digits."""
    parts = (
        BUILDER_VERSION,
        manifest.environment,
        manifest.lock_text(),
        sys.implementation.cache_tag,
        platform.python_version(),
        sysconfig.get_platform(),
        platform.libc_ver()[0],
        *([requirements] if requirements else []),
    )
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def _link_packages(base: Path, directory: Path) -> None:
    """What is installed in one environment into another, without copying: installers replace files, never write
    into them.
    """
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": "", "platbase": ""}).lstrip("/"))
    shutil.copytree(base / packages, directory / packages, copy_function=os.link, dirs_exist_ok=True)


def _mark_ready(directory: Path) -> None:
    with (directory / ".ready").open("w") as file:
        file.write(BUILDER_VERSION)
        file.flush()
        os.fsync(file.fileno())
