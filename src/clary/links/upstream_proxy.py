"""The proxy that was in force before ours: `clary up`, `clary env` and `clary run` note it, gateways go through it.

A file, because it comes from a person's environment: who names a proxy last is right. It may hold a
password, so it is kept like a key.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clary.settings import Settings

OWN_USER = "clary"
"""Who our own proxy's URL names: one with this user is never anybody's upstream."""

_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """`url` is `http://[user:password@]host:port`, "" for none; `no_proxy` names hosts that are reached directly."""

    url: str = ""
    no_proxy: str = ""

    def __repr__(self) -> str:
        return f"UpstreamProxy({urlsplit(self.url).hostname!r}, …)"

    def leads_to(self, host: str) -> bool:
        """Whether the way to `host` is through this proxy."""
        return bool(self.url) and not any(_names(each, host) for each in self.no_proxy.split(","))


def found_in(environ: Mapping[str, str]) -> UpstreamProxy | None:
    """The proxy a person has set; None when what is set is ours, so that it tells nothing."""
    url = next((environ[name] for name in _VARIABLES if environ.get(name)), "")
    if url and "://" not in url:
        url = f"http://{url}"
    if urlsplit(url).username == OWN_USER:
        return None
    return UpstreamProxy(url, environ.get("no_proxy") or environ.get("NO_PROXY") or "")


def note(settings: Settings, proxy: UpstreamProxy) -> None:
    """Tells every gateway, from its next connection on."""
    file = _file(settings)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(asdict(proxy), stream)
    temporary.rename(file)


def noted(settings: Settings) -> UpstreamProxy:
    try:
        return UpstreamProxy(**json.loads(_file(settings).read_text()))
    except FileNotFoundError:
        return UpstreamProxy()


def _file(settings: Settings) -> Path:
    return settings.run_dir / "upstream-proxy.json"


def _names(entry: str, host: str) -> bool:
    domain = entry.strip().lower().removeprefix("*").removeprefix(".")
    return entry.strip() == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))
