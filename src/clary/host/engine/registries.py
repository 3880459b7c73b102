"""Credentials of private registries, from where `docker login` and `podman login` keep them.

They are handed to the engine for one pull and stand nowhere else.
"""

import base64
import binascii
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HELPER_TIMEOUT_S = 20.0


def credentials_for(registry: str, environ: Mapping[str, str]) -> str:
    """The engine's X-Registry-Auth header; empty when nobody has logged in there."""
    for file in _files(environ):
        try:
            config: dict[str, Any] = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if found := _in_config(config, registry, environ):
            return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()
    return ""


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ.get("HOME") or Path.home())
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"


def _in_config(config: Mapping[str, Any], registry: str, environ: Mapping[str, str]) -> dict[str, str]:
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    if helper and (found := _ask_helper(str(helper), registry, environ)):
        return found
    entry = config.get("auths", {}).get(registry) or config.get("auths", {}).get(f"https://{registry}")
    if not entry:
        return {}
    if token := entry.get("identitytoken"):
        return {"identitytoken": token, "serveraddress": registry}
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return {}
    return {"username": user, "password": password, "serveraddress": registry} if user else {}


def _ask_helper(helper: str, registry: str, environ: Mapping[str, str]) -> dict[str, str]:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=registry.encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
            env=dict(environ),
            check=True,
        )
        said = json.loads(done.stdout)
        user, secret = said["Username"], said["Secret"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return {}
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry}
