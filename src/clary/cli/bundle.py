"""The certificates clients are told to trust: what they trusted before, plus our own authority.

One file in the data directory, written anew each time somebody asks for the environment, because what was trusted
before is a matter of that person's shell.
"""

import importlib.util
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from clary import certificates
from clary.settings import Settings

_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def path(settings: Settings) -> Path:
    return settings.keys_dir / "ca-bundle.pem"


def write(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The bundle, up to date. Raises FileNotFoundError when there is no authority yet."""
    file = path(settings)
    own = _certificates(certificates.authority_file(settings))
    trusted = dict.fromkeys(each for source in _sources(file, environ) for each in _certificates(source))
    text = "\n".join([*own, *(each for each in trusted if each not in own)]) + "\n"
    if not file.exists() or file.read_text() != text:
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.chmod(0o600)
        temporary.rename(file)
    return file


def _sources(ours: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where trust came from before. Our own file among them holds it already, from the last time."""
    said = [Path(environ[name]) for name in _VARIABLES if environ.get(name)]
    found = [place for place in said if place.exists()]
    if not found:
        found = list(_defaults())[:1]
    for place in found:
        if place.is_dir():
            yield from sorted(each for each in place.iterdir() if each.suffix in (".pem", ".crt"))
        else:
            yield place


def _defaults() -> Iterator[Path]:
    """What clients use when nothing is said: certifi's, the system's, botocore's own."""
    system = ssl.get_default_verify_paths().cafile
    for place in (_beside("certifi"), Path(system) if system else None, _beside("botocore")):
        if place is not None and place.exists():
            yield place


def _beside(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).with_name("cacert.pem")


def _certificates(place: Path) -> list[str]:
    return _CERTIFICATE.findall(place.read_text(errors="replace"))
