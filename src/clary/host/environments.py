"""Virtual environments of the frameworks, built once by uv and shared by all data directories of a user.

An environment is named by what is in it: the hash of its lock, the Python, the platform and this builder. It is
built where it stays (a virtual environment does not like to move) and counts only when its `.ready` file is there,
which is written last. A file lock lets one builder at a time work on it, over all hosts; uv inherits the lock, so
that a uv which outlived its host cannot write into a second build.

The requirements of a user's script make an environment of their own: the framework's, as hard links, and what they
ask for on top, as wheels only. It is named by the framework's and by their text. What a build does, and where its
packages come from, is `installing`'s.

    <cache_dir>/environments/<name>-<key>/    the environment, with `.ready`
    <cache_dir>/environments/<name>-<key>.lock

Only a build needs the network. What does not work out raises `EnvironmentFailed`, and a later call tries again.
"""

import fcntl
import hashlib
import platform
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clary.catalog import Manifest
from clary.host.installing import BUILDER_VERSION, SIZE, Build, EnvironmentFailed, Progress, Source
from clary.host.package_indexes import uv_variables
from clary.host.sizes import size_bytes

__all__ = ["Environment", "EnvironmentFailed", "Environments", "environment_key"]


@dataclass(frozen=True, slots=True)
class Environment:
    """A built environment. `key` names its content; `python` runs in it."""

    name: str
    key: str
    python: Path


class Environments:
    """Builds and finds environments. Thread-safe: who asks for one being built waits for it."""

    def __init__(
        self,
        root: Path,
        index_urls: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        find_links: Mapping[str, str] | None = None,
        allows_cuda: bool = False,
    ) -> None:
        self._root = root
        self._index_urls = index_urls
        self._find_links = find_links or {}
        self._environ = environ
        self._allows_cuda = allows_cuda
        self._locks: dict[str, threading.Lock] = {}
        self._building: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
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
        """Counted once: nothing is written into an environment that is ready, and it has many thousand files."""
        if manifest.environment == "host":
            return 0
        environment = self._describe(manifest)
        if (known := self._sizes.get(environment.key)) is None:
            known = self._sizes[environment.key] = _size_of(self._directory(environment))
        return known

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
                    build = Build(
                        manifest,
                        self._source(manifest),
                        allows_cuda=self._allows_cuda,
                        lock=lock_file.fileno(),
                        progress=tell,
                    )
                    if base is None:
                        build.run(directory)
                    else:
                        build.run_on_top(directory, self._directory(base), requirements)
        except OSError as error:
            raise EnvironmentFailed(
                f"the {manifest.name} environment could not be built in {directory.parent}: {error}"
            ) from error
        finally:
            self._building.pop(environment.key, None)

    def _source(self, manifest: Manifest) -> Source:
        """What the settings say of a framework goes before what the machine says."""
        variables = uv_variables(self._environ)
        if place := self._find_links.get(manifest.name):
            known = variables.get("UV_FIND_LINKS")
            variables["UV_FIND_LINKS"] = f"{place},{known}" if known else place
        index = self._index_urls.get(manifest.name)
        if index and manifest.indexes:
            return Source(variables).with_indexes((index,))
        if index:
            variables["UV_DEFAULT_INDEX"] = index
        return Source(variables)


def _size_of(directory: Path) -> int:
    """As its builder noted it."""
    try:
        return int((directory / SIZE).read_text())
    except (OSError, ValueError):
        return size_bytes(directory)


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
