"""`clary image`: what answers for which image, and images made of a requirements file.

An image of one's own is a framework with packages on top, and needs no container engine: `make` installs them once,
here, so that what does not install is seen at once, and writes down what that came to (`links.images`). A running
server finds it by itself. Nothing here needs the server to run.
"""

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from clary.catalog import Catalog, Manifest
from clary.cli import CommandError, server
from clary.cli.status import table
from clary.domain.images import parse_image
from clary.host import user_code
from clary.host.environments import Environment, EnvironmentFailed, Environments
from clary.host.failures import Refused
from clary.host.installing import has_gpu
from clary.links import images
from clary.settings import Settings

DEFAULT_BASE = "sklearn"
_COLUMNS = ("image", "framework", "version", "does", "older models", "scripts")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_BY_ADDRESS = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\]\s*)?@")


def run(arguments: argparse.Namespace) -> int:
    wanted = server.wanted(arguments)
    catalog = Catalog.load(own=wanted.images_dir)
    name = arguments.name
    if arguments.action == "list":
        print("\n".join(listed(catalog)))
        return 0
    if name is None:
        raise CommandError(
            f"clary image {arguments.action} needs an image's name; there are: clary image list"
        )
    if arguments.action == "show":
        print("\n".join(shown(catalog, name, wanted)))
    elif arguments.action == "make":
        make(catalog, name, arguments, wanted)
    elif not images.remove(wanted.images_dir, name):
        raise CommandError(f"there is no image {name} of your own; there are: clary image list")
    else:
        print(f"{name} is removed; endpoints that run go on, new instances of it do not start")
    return 0


def listed(catalog: Catalog) -> list[str]:
    return table(_COLUMNS, [_row(catalog, name) for name in catalog.repositories]).splitlines()


def shown(catalog: Catalog, name: str, wanted: Settings) -> Iterator[str]:
    """Everything that is known of an image."""
    manifest = catalog.resolve(name)
    if manifest is None:
        refusal = catalog.refusal(name)
        raise CommandError(
            f"no runtime answers for {name}{refusal and f': {refusal}'}; there are: clary image list. Make one: clary "
            "image make NAME -r FILE"
        )
    yield f"{name}: {manifest.name} {manifest.version}, which answers for every tag"
    found = parse_image(name)
    own = images.read(wanted.images_dir, found.repository) if found else None
    if own is not None:
        yield f"  made of      {', '.join(own.requirements)}"
        yield f"  installs     {', '.join(own.packages) or 'nothing, all of it is there'}"
    yield f"  does         {', '.join(manifest.roles)}"
    yield f"  scripts      {_scripts(catalog, manifest)}"
    for other in catalog.manifests:
        for rule in other.instead:
            if manifest.name in rule.of or (not rule.of and other.name != manifest.name):
                yield f"  instead      a model with {rule.file} and no script is {other.name}'s"
    if manifest.older:
        yield f"  older models {manifest.older.version}, where their first bytes ask for it"
    if manifest.import_time_environment:
        yield f"  fresh start  for instances that set {', '.join(manifest.import_time_environment)}"
    built = _environments(wanted).ready(manifest, manifest.on_top)
    yield f"  environment  {built.python.parent.parent if built else 'built when it is first needed'}"
    packages = _installed(built) if built else _locked(manifest)
    yield f"  packages     {', '.join(f'{each} {packages[each]}' for each in sorted(packages))}"


def make(catalog: Catalog, name: str, arguments: argparse.Namespace, wanted: Settings) -> None:
    if arguments.requirements is None:
        raise CommandError("clary image make needs a requirements file: -r requirements.txt")
    manifest = _base(catalog, name, arguments.on or DEFAULT_BASE, wanted)
    lines = _lines(Path(arguments.requirements))
    environments = _environments(wanted)
    with_scripts = catalog.named(manifest.script) or manifest
    tell = _Teller()
    try:
        base = environments.obtain(with_scripts, tell)
        built = environments.obtain(with_scripts, tell, "".join(f"{line}\n" for line in lines))
        packages = _added(lines, base, built)
        # Under the name that hosts will look for: it is ready when the first instance starts.
        environments.obtain(with_scripts, tell, "".join(f"{line}\n" for line in packages))
    except EnvironmentFailed as error:
        raise CommandError(str(error)) from error
    images.write(wanted.images_dir, images.OwnImage(name, manifest.name, tuple(lines), tuple(packages)))
    print(f"{name} is {manifest.name} {manifest.version} with {', '.join(packages) or 'nothing more'}")
    print(f"Use it as Image={name}; a running server knows it already")


class _Teller:
    """Prints what a build does, without the details and once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        step = text.partition(": ")[0]
        if step != self._last:
            print(f"{step} …", flush=True)
        self._last = step


def _base(catalog: Catalog, name: str, on: str, wanted: Settings) -> Manifest:
    if not images.is_name(name):
        raise CommandError(
            f"{name!r} is no name for an image: small letters and digits, with . _ - between them, without a tag"
        )
    taken = catalog.resolve(name) is not None and name not in images.names(wanted.images_dir)
    if taken or catalog.named(name) is not None:
        raise CommandError(f"{name} is a name of Clary's own: choose another")
    found = catalog.named(on)
    if found is None or not found.repositories:
        known = ", ".join(sorted(each.name for each in catalog.manifests if each.repositories))
        raise CommandError(f"there is no framework {on} to make an image on; there are {known}")
    return found


def _lines(path: Path) -> list[str]:
    """What the file asks for. Only what names packages and indexes: it is installed outside of any sandbox."""
    if not path.is_file():
        raise CommandError(f"there is no file {path}")
    try:
        text = user_code.text_of(path.parent, path.name).replace("\\\n", " ")
        lines = [*user_code.checked_lines(path.parent, path.name, text.splitlines())]
    except Refused as error:
        raise CommandError(str(error)) from error
    if not any(not line.startswith("-") for line in lines):
        raise CommandError(f"{path} names no package")
    return lines


def _added(lines: Iterable[str], base: Environment, built: Environment) -> list[str]:
    """Exactly what was installed on top. What came from an address stays the address, and indexes stay indexes."""
    options = [line for line in lines if line.startswith("-")]
    addresses = {found[1]: line for line in lines if (found := _BY_ADDRESS.match(line))}
    known = {_normal(name) for name in addresses}
    there = _installed(base)
    pins = [
        f"{name}=={version}"
        for name, version in sorted(_installed(built).items())
        if there.get(name) != version and name not in known
    ]
    return [*options, *addresses.values(), *pins]


def _installed(environment: Environment) -> dict[str, str]:
    folders = environment.python.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    found = [folder.name.removesuffix(".dist-info").partition("-") for folder in folders]
    return {_normal(name): version for name, _, version in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _row(catalog: Catalog, name: str) -> tuple[str, ...]:
    manifest = catalog.resolve(name)
    if manifest is None:  # a file of one's own that cannot be used
        return (name, "", "", "", "", "")
    more = " and more" if manifest.on_top else ""
    older = manifest.older.version if manifest.older else ""
    does = ", ".join(manifest.roles)
    return (name, manifest.name + more, manifest.version, does, older, "yes" if manifest.script else "no")


def _scripts(catalog: Catalog, manifest: Manifest) -> str:
    other = catalog.named(manifest.script)
    if other is None:
        return "none"
    return "yes" if other.name == manifest.name else f"yes, in the fuller environment of {other.name}"


def _locked(manifest: Manifest) -> Mapping[str, str]:
    """As the lock has it: which of two versions of a package it is depends on the Python."""
    found: dict[str, str] = {}
    for name, version in _PINNED.findall(manifest.lock_text() + manifest.on_top):
        found[name] = f"{found[name]} or {version}" if name in found else version
    return found


def _environments(wanted: Settings) -> Environments:
    return Environments(
        wanted.cache_dir / "environments",
        wanted.index_urls,
        os.environ,
        find_links=wanted.find_links,
        allows_cuda=wanted.cuda == "yes" or (wanted.cuda == "auto" and has_gpu()),
    )
