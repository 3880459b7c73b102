"""Which runtime answers for an image URI.

A framework is a folder with a `manifest.toml` in it; this module reads the manifests and imports none of the
code they name. The registry and the tag of an image say nothing here: one current version of a framework
serves all its tags, so the repository alone decides.

Manifest keys, all but the marked ones required:

  name                     what people call the framework; also its environment's and zygote's name
  version                  the framework's version, shown wherever an image is resolved
  module                   the module that loads and serves its models, imported inside the environment only
  repositories             image repositories this framework answers for
  roles                    what it can do: "serve", "train", …
  lock                     requirements with hashes, beside the manifest: what its environment holds
  fork_safe                whether a forked child of a process that imported it works (optional, true)
  preload                  modules a zygote imports before it forks (optional)
  import_time_environment  variables, with `*`, that only count at import: they force a fresh start (optional)
  script                   the framework that serves its models when they come with a user's script (optional)
  entry                    `module:function` that runs an instance (optional, the model server)
  path                     folder beside the manifest put on the module path, for frameworks kept elsewhere (optional)
  environment              "host" uses this server's own Python in place of an environment: for tests (optional)

  [older]                  a second, older environment of the framework (optional), with
  version, lock              as above
  signs                      regular expressions over the beginning of a model's file: one that fits needs it. They
                             look at bytes, nothing is loaded. A framework for scripts goes by those of its images
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast, get_args

from clary.domain.images import parse_image
from clary.domain.instances import Role

FRAMEWORKS = Path(__file__).parent / "runtimes" / "frameworks"
MODEL_SERVER = "clary.runtimes.server:main"


class CatalogError(Exception):
    """A manifest that cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Older:
    """What a framework's older environment differs in, and when it is needed."""

    version: str
    lock: str
    signs: tuple[re.Pattern[bytes], ...] = ()

    def is_needed_for(self, beginning: bytes) -> bool:
        return any(sign.search(beginning) for sign in self.signs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One framework, as its `manifest.toml` describes it."""

    directory: Path
    name: str
    version: str
    module: str
    repositories: tuple[str, ...]
    roles: tuple[Role, ...]
    lock: str = ""
    fork_safe: bool = True
    preload: tuple[str, ...] = ()
    import_time_environment: tuple[str, ...] = ()
    script: str = ""
    entry: str = MODEL_SERVER
    path: str = ""
    environment: Literal["venv", "host"] = "venv"
    older: Older | None = None

    def in_older_environment(self) -> "Manifest":
        """The framework in its older environment; itself where it has none."""
        if self.older is None:
            return self
        return replace(self, version=self.older.version, lock=self.older.lock, older=None)

    def lock_text(self) -> str:
        return (self.directory / self.lock).read_text() if self.lock else ""

    def is_import_time(self, variable: str) -> bool:
        """Whether a zygote that imported the framework already would not notice this variable."""
        return any(fnmatchcase(variable, pattern) for pattern in self.import_time_environment)


class Catalog:
    """The frameworks at hand."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._by_name: dict[str, Manifest] = {}
        self._by_repository: dict[str, Manifest] = {}
        for manifest in manifests:
            _add_once(self._by_name, manifest.name, manifest, "name")
            for repository in manifest.repositories:
                _add_once(self._by_repository, repository, manifest, "repository")

    @classmethod
    def load(cls, *directories: Path) -> "Catalog":
        """Every framework below the directories; without any, those that come with Clary."""
        found = [
            path for folder in directories or (FRAMEWORKS,) for path in sorted(folder.glob("*/manifest.toml"))
        ]
        return cls(read_manifest(path) for path in found)

    def resolve(self, image_uri: str) -> Manifest | None:
        """The framework that answers for an image; None when nobody does."""
        image = parse_image(image_uri)
        return None if image is None else self._by_repository.get(image.repository)

    def named(self, name: str) -> Manifest | None:
        return self._by_name.get(name)

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that resolves, sorted: what an error message can offer."""
        return tuple(sorted(self._by_repository))

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return tuple(self._by_name.values())


def read_manifest(path: Path) -> Manifest:
    """Reads and checks one manifest."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path} cannot be read: {error}") from error
    checked = {key: _checked(path, key, value) for key, value in values.items()}
    if missing := sorted(_REQUIRED - checked.keys()):
        raise CatalogError(f"{path} lacks {', '.join(missing)}")
    manifest = Manifest(directory=path.parent, **checked)
    _check(path, manifest)
    return manifest


_TYPES: Mapping[str, type] = {
    "name": str,
    "version": str,
    "module": str,
    "repositories": tuple,
    "roles": tuple,
    "lock": str,
    "fork_safe": bool,
    "preload": tuple,
    "import_time_environment": tuple,
    "script": str,
    "entry": str,
    "path": str,
    "environment": str,
}
_OLDER_TYPES: Mapping[str, type] = {"version": str, "lock": str, "signs": tuple}
_REQUIRED = frozenset({"name", "version", "module", "repositories", "roles"})


def _older(path: Path, values: dict[str, object]) -> Older:
    checked = {key: _checked(path, key, value, _OLDER_TYPES) for key, value in values.items()}
    try:
        signs = tuple(re.compile(sign.encode(), re.DOTALL) for sign in checked.pop("signs", ()))
        return Older(signs=signs, **checked)
    except (re.error, TypeError) as error:
        raise CatalogError(f"{path} has an [older] that cannot be used: {error}") from error


def _checked(path: Path, key: str, value: object, types: Mapping[str, type] = _TYPES) -> Any:
    if key == "older" and isinstance(value, dict):
        return _older(path, value)
    expected = types.get(key)
    if expected is None:
        raise CatalogError(f"{path} sets {key!r}, which no manifest has")
    if expected is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(cast("list[str]", value))
        raise CatalogError(f"{path} sets {key} to {value!r}, which is not a list of strings")
    if not isinstance(value, expected):
        raise CatalogError(f"{path} sets {key} to {value!r}, which is not of type {expected.__name__}")
    return value


def _check(path: Path, manifest: Manifest) -> None:
    if unknown := set(manifest.roles) - set(get_args(Role)):
        raise CatalogError(f"{path} names unknown roles: {', '.join(sorted(unknown))}")
    if manifest.environment not in ("venv", "host"):
        raise CatalogError(f"{path} sets environment to {manifest.environment!r}; venv and host exist")
    locks = [manifest.lock] if manifest.environment == "venv" else []
    for lock in (*locks, *([manifest.older.lock] if manifest.older else [])):
        if not (manifest.directory / lock).is_file():
            raise CatalogError(f"{path} names the lock {lock!r}, and there is no such file beside it")
    if ":" not in manifest.entry:
        raise CatalogError(f"{path} sets entry to {manifest.entry!r}, which is not module:function")


def _add_once(table: dict[str, Manifest], key: str, manifest: Manifest, what: str) -> None:
    if key in table:
        first = table[key].directory
        raise CatalogError(f"two frameworks have the {what} {key!r}: {first} and {manifest.directory}")
    table[key] = manifest
