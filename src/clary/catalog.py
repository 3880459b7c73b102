"""Which runtime answers for an image URI.

A framework is a folder with a `manifest.toml` in it; this module reads the manifests and imports none of the
code they name. The registry and the tag of an image say nothing here: one current version of a framework
serves all its tags, so the repository alone decides. Images that were made of a requirements file (`links.images`)
are a framework with packages on top; they are read whenever one is asked for, so that nobody need be told of a new one.

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
  indexes                  package indexes that its lock needs besides the machine's own (optional): tried when those
                             do not have it
  models                   what a model without a script is, in words, for people (optional)
  script                   the framework that serves its models when they come with a user's script (optional)
  packages                 folder beside a user's script that holds its packages: where it is, requirements.txt
                             counts for nothing (optional)
  own_requirements         whether files in the root of its models say what they need installed on top of the lock, as
                             MLflow's do (optional, false)
  entry                    `module:function` that runs an instance (optional, the model server)
  path                     folder beside the manifest put on the module path, for frameworks kept elsewhere (optional)
  environment              "host" uses this server's own Python in place of an environment: for tests (optional)

  [older]                  a second, older environment of the framework (optional), with
  version, lock              as above
  signs                      regular expressions over the beginning of a model's file: one that fits needs it. They
                             look at bytes, nothing is loaded. A framework for scripts goes by those of its images
  variables                  NAME=VALUE, with `*`, in the model's Environment that needs it too (optional)

  [refused]                repositories that people may take for this framework's (optional): NAME, with `*`, and what
                             to use

  [[instead]]              models it serves although their image is another framework's, unless they have a script:
  file                       a name, with `*`, of a file in the model's root. A plain name goes before one with `*`
  of                         the frameworks whose images it is looked for in (optional, all of them)
  unless                     names, with `*`, of files that say that the image's own framework is meant (optional)
"""

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast, get_args

from clary.domain.images import parse_image
from clary.domain.instances import Role
from clary.links import images as own_images

FRAMEWORKS = Path(__file__).parent / "runtimes" / "frameworks"
MODEL_SERVER = "clary.runtimes.server:main"

log = logging.getLogger(__name__)


class CatalogError(Exception):
    """A manifest that cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Older:
    """What a framework's older environment differs in, and when it is needed."""

    version: str
    lock: str
    signs: tuple[re.Pattern[bytes], ...] = ()
    variables: tuple[str, ...] = ()

    def is_needed_for(self, beginning: bytes) -> bool:
        return any(sign.search(beginning) for sign in self.signs)

    def is_asked_for(self, environment: Mapping[str, str]) -> bool:
        settings = [f"{name}={value}" for name, value in environment.items()]
        return any(fnmatchcase(setting, wanted) for wanted in self.variables for setting in settings)


@dataclass(frozen=True, slots=True)
class Instead:
    """What tells a model of one framework in an image of another."""

    file: str
    of: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def fits(self, image_framework: str, files: Iterable[str]) -> bool:
        """Whether a model with these files in its root is meant, when its image is of that framework."""
        if self.of and image_framework not in self.of:
            return False
        names = list(files)
        others = (name for name in names for pattern in self.unless if fnmatchcase(name, pattern))
        return any(fnmatchcase(name, self.file) for name in names) and not any(others)

    @property
    def is_exact(self) -> bool:
        return not set(self.file) & set("*?[")


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
    indexes: tuple[str, ...] = ()
    models: str = ""
    script: str = ""
    packages: str = ""
    entry: str = MODEL_SERVER
    path: str = ""
    environment: Literal["venv", "host"] = "venv"
    own_requirements: bool = False
    older: Older | None = None
    instead: tuple[Instead, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    on_top: str = ""  # of an image of one's own: requirements, a line each. Not a key

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

    def __init__(self, manifests: Iterable[Manifest], own: Path | None = None) -> None:
        self._own = own
        self._by_name: dict[str, Manifest] = {}
        self._by_repository: dict[str, Manifest] = {}
        for manifest in manifests:
            _add_once(self._by_name, manifest.name, manifest, "name")
            for repository in manifest.repositories:
                _add_once(self._by_repository, repository, manifest, "repository")

    @classmethod
    def load(cls, *directories: Path, own: Path | None = None) -> "Catalog":
        """Every framework below the directories, without any those that come with Clary; and the images in `own`."""
        found = [
            path for folder in directories or (FRAMEWORKS,) for path in sorted(folder.glob("*/manifest.toml"))
        ]
        return cls([read_manifest(path) for path in found], own)

    def resolve(self, image_uri: str) -> Manifest | None:
        """The framework that answers for an image; None when nobody does."""
        image = parse_image(image_uri)
        if image is None:
            return None
        return self._by_repository.get(image.repository) or self._made(image.repository)

    def _made(self, name: str) -> Manifest | None:
        """The framework of an image of one's own, with its packages."""
        try:
            image = own_images.read(self._own, name) if self._own else None
        except own_images.ImageFileError as error:
            log.warning("an image of one's own cannot be used", extra={"image": name, "error": str(error)})
            return None
        base = self._by_name.get(image.on) if image else None
        if image is None or base is None:
            return None
        return replace(base, on_top="".join(f"{line}\n" for line in image.packages))

    def refusal(self, image_uri: str) -> str:
        """What to use in place of an image that no framework answers for, where one knows; empty where none does."""
        image = parse_image(image_uri)
        name = "" if image is None else image.repository
        told = (pair for manifest in self._by_name.values() for pair in manifest.refused)
        return next((words for pattern, words in told if fnmatchcase(name, pattern)), "")

    def named(self, name: str) -> Manifest | None:
        return self._by_name.get(name)

    def instead_of(self, manifest: Manifest, files: Iterable[str]) -> Manifest | None:
        """The framework that serves a model with these files in its root in place of its image's; None: nobody."""
        names = list(files)
        fitting = [
            (not rule.is_exact, other.name, other)
            for other in self._by_name.values()
            if other.name not in (manifest.name, manifest.script)
            for rule in other.instead
            if rule.fits(manifest.name, names)
        ]
        return min(fitting, key=lambda each: each[:2])[2] if fitting else None

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that resolves, sorted: what an error message can offer."""
        own = own_images.names(self._own) if self._own else ()
        return tuple(sorted({*self._by_repository, *own}))

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
    "indexes": tuple,
    "models": str,
    "script": str,
    "packages": str,
    "entry": str,
    "own_requirements": bool,
    "path": str,
    "environment": str,
}
_OLDER_TYPES: Mapping[str, type] = {"version": str, "lock": str, "signs": tuple, "variables": tuple}
_INSTEAD_TYPES: Mapping[str, type] = {"file": str, "of": tuple, "unless": tuple}
_REQUIRED = frozenset({"name", "version", "module", "repositories", "roles"})


def _older(path: Path, values: dict[str, object]) -> Older:
    checked = {key: _checked(path, key, value, _OLDER_TYPES) for key, value in values.items()}
    try:
        signs = tuple(re.compile(sign.encode(), re.DOTALL) for sign in checked.pop("signs", ()))
        return Older(signs=signs, **checked)
    except (re.error, TypeError) as error:
        raise CatalogError(f"{path} has an [older] that cannot be used: {error}") from error


def _instead(path: Path, rules: list[object]) -> tuple[Instead, ...]:
    found = []
    for rule in rules:
        values = rule if isinstance(rule, dict) else {}
        checked = {key: _checked(path, key, value, _INSTEAD_TYPES) for key, value in values.items()}
        if not checked.get("file"):
            raise CatalogError(f"{path} has an [[instead]] that names no file")
        found.append(Instead(**checked))
    return tuple(found)


def _checked(path: Path, key: str, value: object, types: Mapping[str, type] = _TYPES) -> Any:
    if key == "older" and isinstance(value, dict):
        return _older(path, value)
    if key == "instead" and isinstance(value, list):
        return _instead(path, value)
    if key == "refused" and isinstance(value, dict):
        return tuple((str(name), str(words)) for name, words in value.items())
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
