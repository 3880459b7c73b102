"""Keys: the root key of this installation, and session tokens, which carry all that is needed to accept them.

A token is `base64url(payload) . base64url(tag)`: role, session, account, expiry and access key id, under a tag
made with a key derived from the installation's seal key. The secret access key is derived from the payload with
another derived key. So whoever holds the seal key accepts a token without having heard of it, and nothing is
stored.
"""

import base64
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clary.domain.faults import Fault
from clary.domain.principals import DEFAULT_ROLE_NAME, ROOT_SESSION_NAME, Principal, assumed_role


class KeyFileError(Exception):
    """The key file is missing or not readable; the message says which."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client signs with."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an accepted key means: who it is, its secret, and until when (epoch seconds; None: for ever)."""

    principal: Principal
    secret: str
    expires: int | None = None


class _Payload(msgspec.Struct):
    role: str
    session: str
    account: str
    expires: int
    access_key_id: str


class KeyRing:
    """The keys this installation accepts."""

    def __init__(self, root: Credentials, seal_key: bytes, account: str) -> None:
        principal = assumed_role(
            account, DEFAULT_ROLE_NAME, ROOT_SESSION_NAME, root.access_key_id, is_root=True
        )
        self.root = root
        self.account = account
        self._granted = {root.access_key_id: Grant(principal, root.secret_access_key)}
        self._tag_key = hmac.digest(seal_key, b"clary session token tag", "sha256")
        self._secret_key = hmac.digest(seal_key, b"clary session token secret", "sha256")

    @classmethod
    def load(cls, path: Path, account: str) -> "KeyRing":
        """Reads `keys/credentials.json`. Raises KeyFileError."""
        try:
            content = json.loads(path.read_bytes())
            root = Credentials(content["root"]["access_key_id"], content["root"]["secret_access_key"])
            return cls(root, bytes.fromhex(content["seal_key"]), account)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyFileError(f"the key file {path} cannot be used: {error}") from error

    def grant(self, access_key_id: str, token: str) -> Grant | None:
        """What the key means, None when it is not one of ours. Whether it has expired is the caller's affair."""
        if not token:
            return self._granted.get(access_key_id)
        body, _, tag = token.partition(".")
        if not hmac.compare_digest(_encode(self._tag(body)).encode(), tag.encode("utf-8", "replace")):
            return None
        payload = msgspec.json.decode(_decode(body), type=_Payload)
        if payload.access_key_id != access_key_id:
            return None
        principal = assumed_role(payload.account, payload.role, payload.session, payload.access_key_id)
        return Grant(principal, self._secret(body), payload.expires)

    def issue_session(self, role: str, session: str, account: str, expires: int) -> Credentials:
        """Credentials of a role until `expires` (epoch seconds)."""
        access_key_id = "ASIA" + base64.b32encode(os.urandom(10)).decode()
        payload = _Payload(role, session, account, expires, access_key_id)
        body = _encode(msgspec.json.encode(payload))
        return Credentials(access_key_id, self._secret(body), f"{body}.{_encode(self._tag(body))}")

    def _tag(self, body: str) -> bytes:
        return hmac.digest(self._tag_key, body.encode("utf-8", "replace"), "sha256")

    def _secret(self, body: str) -> str:
        digest = hmac.digest(self._secret_key, body.encode(), "sha256")
        return base64.b64encode(digest[:30]).decode()


def invalid_token() -> Fault:
    return Fault("UnrecognizedClientException", "The security token included in the request is invalid.", 403)


def expired_token() -> Fault:
    return Fault("ExpiredTokenException", "The security token included in the request is expired", 403)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
