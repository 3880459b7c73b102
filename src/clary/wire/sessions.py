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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clary.domain.faults import Fault
from clary.domain.principals import DEFAULT_ROLE_NAME, ROOT_SESSION_NAME, Principal, assumed_role, user
from clary.links.decoding import decode_json


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
    issuer: str = ""  # the role's or user's ARN; "" is the role of that name without a path
    policy: str = ""
    is_root: bool = False


class _Capability(msgspec.Struct):
    role_arn: str
    instance: str


class KeyRing:
    """The keys this installation accepts."""

    def __init__(self, root: Credentials, seal_key: bytes, account: str) -> None:
        principal = assumed_role(
            account, DEFAULT_ROLE_NAME, ROOT_SESSION_NAME, root.access_key_id, is_root=True
        )
        self.root = root
        self.account = account
        self._root_grants = {root.access_key_id: Grant(principal, root.secret_access_key)}
        self._granted = self._root_grants
        self._instance_key = hmac.digest(seal_key, b"clary instance token tag", "sha256")
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
        payload = decode_json(_decode(body), _Payload)
        if payload.access_key_id != access_key_id:
            return None
        return Grant(_principal(payload), self._secret(body), payload.expires)

    def use_keys(self, keys: Iterable[tuple[str, str, str]]) -> None:
        """From now on these are the users' keys: access key id, secret, the user's ARN."""
        granted = {
            access_key_id: Grant(user(self.account, arn, access_key_id), secret)
            for access_key_id, secret, arn in keys
        }
        self._granted = {**granted, **self._root_grants}

    def issue_session(
        self, role: str, session: str, account: str, expires: int, *, issuer: str = "", policy: str = ""
    ) -> Credentials:
        """Credentials of a role until `expires` (epoch seconds)."""
        return self._issue(_Payload(role, session, account, expires, _temporary_id(), issuer, policy))

    def issue_session_of(self, principal: Principal, expires: int) -> Credentials:
        """Credentials that mean what the principal's own key means, until `expires`."""
        _, _, tail = principal.arn.partition("/")
        role, session = ("", "") if principal.name else (tail.split("/")[0], tail.split("/")[-1])
        return self._issue(
            _Payload(
                role,
                session,
                principal.account,
                expires,
                _temporary_id(),
                principal.issuer,
                is_root=principal.is_root,
            )
        )

    def instance_token(self, role_arn: str, instance: str) -> str:
        """What an instance shows to get credentials of its role. It holds as long as the instance is there."""
        body = _encode(msgspec.json.encode(_Capability(role_arn, instance)))
        return f"{body}.{_encode(hmac.digest(self._instance_key, body.encode(), 'sha256'))}"

    def read_instance_token(self, token: str) -> tuple[str, str] | None:
        """Role and instance of such a token; None when it is none of ours."""
        body, _, tag = token.partition(".")
        expected = _encode(hmac.digest(self._instance_key, body.encode("utf-8", "replace"), "sha256"))
        if not hmac.compare_digest(expected.encode(), tag.encode("utf-8", "replace")):
            return None
        found = decode_json(_decode(body), _Capability)
        return found.role_arn, found.instance

    def _issue(self, payload: _Payload) -> Credentials:
        body = _encode(msgspec.json.encode(payload))
        return Credentials(payload.access_key_id, self._secret(body), f"{body}.{_encode(self._tag(body))}")

    def _tag(self, body: str) -> bytes:
        return hmac.digest(self._tag_key, body.encode("utf-8", "replace"), "sha256")

    def _secret(self, body: str) -> str:
        digest = hmac.digest(self._secret_key, body.encode(), "sha256")
        return base64.b64encode(digest[:30]).decode()


def _temporary_id() -> str:
    return "ASIA" + base64.b32encode(os.urandom(10)).decode()


def _principal(payload: _Payload) -> Principal:
    if ":user/" in payload.issuer:
        return user(payload.account, payload.issuer, payload.access_key_id, is_session=True)
    return assumed_role(
        payload.account,
        payload.role,
        payload.session,
        payload.access_key_id,
        is_root=payload.is_root,
        issuer=payload.issuer,
        session_policy=payload.policy,
        is_session=True,
    )


def invalid_token() -> Fault:
    return Fault("UnrecognizedClientException", "The security token included in the request is invalid.", 403)


def expired_token() -> Fault:
    return Fault("ExpiredTokenException", "The security token included in the request is expired", 403)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
