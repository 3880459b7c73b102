"""Where this machine gets its packages from, in uv's variables.

Many machines say it to pip only: in PIP_* variables or a pip.conf. uv looks at neither, so what pip would do is
translated, and uv's own variables win. Nothing here decides what is installed: locks carry hashes.
"""

import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_PASSED = re.compile(
    r"^(UV_.*|PIP_.*|SSL_.*|(https?|all|no)_proxy|HOME|PATH|LANG|LC_.*|TMPDIR|XDG_.*|NETRC|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|USER|LOGNAME)$",
    re.IGNORECASE,
)
_FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
}


def uv_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment uv runs in: this process's, as far as it concerns uv, and pip's indexes."""
    variables = {name: value for name, value in environ.items() if _PASSED.match(name)}
    for name in ("UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_CONFIG_FILE"):
        variables.pop(name, None)
    for name, value in _pip_settings(environ).items():
        variable = _FROM_PIP[name]
        separator = "," if variable == "UV_FIND_LINKS" else " "
        if variable == "UV_DEFAULT_INDEX" and "UV_INDEX_URL" in variables:
            continue
        variables.setdefault(variable, separator.join(value.split()))
    # Several indexes may hold a package; the hashes in the lock say which file is meant.
    variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    variables["UV_PYTHON_DOWNLOADS"] = "never"
    variables["UV_NO_PROGRESS"] = "1"
    variables["NO_COLOR"] = "1"
    return variables


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip would use: its variables before its files, a user's file before the machine's."""
    settings: dict[str, str] = {}
    for path in _pip_files(environ):
        settings |= _read_pip_file(path)
    for name in _FROM_PIP:
        if value := environ.get("PIP_" + name.upper().replace("-", "_")):
            settings[name] = value
    return settings


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    if chosen := environ.get("PIP_CONFIG_FILE"):
        yield Path(chosen)
        return
    yield Path("/etc/pip.conf")
    if home := environ.get("HOME"):
        yield Path(home) / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "pip" / "pip.conf"


def _read_pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}  # pip would complain about its own file; uv has no use for it
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {
                name: parser.get(section, name) for name in _FROM_PIP if parser.has_option(section, name)
            }
    return found
