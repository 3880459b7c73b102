"""The keys a data directory is opened with: made once, kept 0600, read by every process that checks signatures.

`keys/credentials.json` holds the root access key and the key under which session tokens are sealed. Losing it
locks nobody out of the data: `clary up` makes a new one.
"""

import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from clary.settings import Settings, SettingsError

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class DamagedKeys(SettingsError):
    """The file with the keys cannot be read as such; the message says what to do."""


@dataclass(frozen=True, slots=True)
class RootKey:
    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return f"RootKey({self.access_key_id!r}, …)"


def path(settings: Settings) -> Path:
    return settings.keys_dir / "credentials.json"


def ensure(settings: Settings) -> RootKey:
    """The root key; made and written whole the first time."""
    file = path(settings)
    if not file.exists():
        settings.keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, _fresh())
    return read(settings)


def read(settings: Settings) -> RootKey:
    """The root key. Raises FileNotFoundError where no server was ever started, DamagedKeys where none can be read."""
    file = path(settings)
    try:
        root = json.loads(file.read_text())["root"]
        return RootKey(root["access_key_id"], root["secret_access_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedKeys(
            f"{file} is damaged. Move it away and start again: new keys are made, and no data is lost"
        ) from error


def proxy_token(settings: Settings) -> str:
    """What opens the proxy on the port: derived, so that older data directories have one too."""
    seal_key = bytes.fromhex(json.loads(path(settings).read_text())["seal_key"])
    return hmac.digest(seal_key, b"clary proxy token", "sha256").hex()[:40]


def _fresh() -> dict[str, object]:
    return {
        "version": 1,
        "root": {
            "access_key_id": "AKIA" + "".join(secrets.choice(_ALPHABET) for _ in range(16)),
            "secret_access_key": secrets.token_urlsafe(30),
        },
        "seal_key": secrets.token_hex(32),
    }


def _write(file: Path, content: dict[str, object]) -> None:
    # One that was killed here may have left its own, and in a container every first process has the same number.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(file)
