"""AWS Signature Version 4, the server's half: `Verifier` checks requests. Clients' is `clary.wire.signing`.

A verdict is never remembered; what is remembered are signing keys (they change daily), and of a request that was
accepted the parsed form of its Authorization header up to the signature and which headers it had.

All `x-amz-*` headers must be signed, since they carry meaning.

Faults are raised with the codes of the JSON protocols; `clary.wire.faults` renames them for the others.
"""

import hashlib
import hmac
import time
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from clary.domain.faults import Fault, access_denied
from clary.domain.principals import Principal
from clary.links.decoding import decode_json
from clary.wire import sigv2
from clary.wire.canonical import canonical_path, canonical_query, query_parameters
from clary.wire.heads import Head
from clary.wire.sessions import Credentials, Grant, KeyRing, expired_token, invalid_token
from clary.wire.signature_faults import content_mismatch, mismatch, request_expired
from clary.wire.signed_claims import (
    UNSIGNED,
    Scope,
    check_payload,
    from_http_date,
    parse_authorization,
    parse_date,
    parse_presigned,
)
from clary.wire.signing import ALGORITHM, sign, signing_key

__all__ = [
    "EMPTY_SHA256",
    "UNSIGNED",
    "Credentials",
    "Identity",
    "KeyRing",
    "Signer",
    "Verifier",
    "content_mismatch",
    "needs_body_hash",
    "sign",
    "signing_key",
]

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_SKEW_S = 5 * 60
_S3_SKEW_S = 15 * 60
_REMEMBERED = 1024
_COMBINATIONS = 8  # of header names, remembered with each scope
_LONGEST_NAMES = 1024
_LONGEST_PATH = 512


class Identity(msgspec.Struct, frozen=True):
    """A verified request: who signed it, for what, and what remains to be checked while its body is read.

    `payload` is the body's SHA-256 in hexadecimal, `UNSIGNED-PAYLOAD`, or one of the `STREAMING-…` words; with
    the latter, chunk signatures go on from `signature` under `amz_date` and the scope.
    """

    principal: Principal
    service: str  # the signing name: `sagemaker`, `s3`, `monitoring` …
    region: str
    amz_date: str
    signature: str
    payload: str
    session_token: str = ""

    def encode(self) -> bytes:
        """For the `x-clary-identity` header."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, text: bytes) -> "Identity":
        return decode_json(text, cls)

    @property
    def scope(self) -> str:
        return f"{self.amz_date[:8]}/{self.region}/{self.service}/aws4_request"


def needs_body_hash(head: Head) -> bool:
    """Whether the signature covers a body hash that the head does not tell: the body must be read first.

    Presigned S3 requests and requests that carry `x-amz-content-sha256` can be verified over the head alone.
    """
    if b"x-amz-content-sha256" in head.headers:
        return False
    if b"authorization" in head.headers:
        return True
    query = head.query
    return b"X-Amz-Signature=" in query and b"%2Fs3%2F" not in query and b"/s3/" not in query


class Signer(NamedTuple):
    """Who signed, and for what: the same object for every request under one key and scope."""

    principal: Principal
    service: str
    region: str


class _Key(NamedTuple):
    grant: Grant
    signer: Signer
    inner: "hashlib._Hash"  # the two halves of HMAC-SHA256 with the signing key already taken in
    outer: "hashlib._Hash"


class Verifier:
    """Checks signatures. `now` gives real time, in epoch seconds: authentication never runs on a fake clock."""

    def __init__(self, keyring: KeyRing, now: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._now = now
        self._scopes: dict[bytes, Scope] = {}
        self._keys: dict[tuple[str, str, bytes], _Key] = {}
        self._dates: dict[bytes, int] = {}

    def verify(self, head: Head, body_sha256: str | None = None) -> Identity:
        """The identity behind a request. `body_sha256` is needed where `needs_body_hash` says so.

        Raises Fault.
        """
        authorization = head.headers.get(b"authorization")
        if authorization is None:
            return self._verify_query(head, body_sha256)
        prefix, signature = authorization[:-64], authorization[-64:]
        scope = self._scopes.get(prefix)
        if scope is not None:
            return self._verify_headers(head, scope, signature, body_sha256)
        identity = self._verify_headers(head, parse_authorization(prefix), signature, body_sha256)
        if len(self._scopes) >= _REMEMBERED:
            self._scopes.clear()
        self._scopes[prefix] = parse_authorization(prefix)
        return identity

    def forget(self) -> None:
        """Looks every key up anew: the keys at hand have changed."""
        self._keys.clear()

    def grant(self, access_key_id: str, token: str) -> Grant:
        """What a key means now. Raises Fault."""
        return self._grant(access_key_id, token)

    def signer(self, head: Head, body_sha256: str) -> Signer:
        """Like `verify`, for those who only need to know who it was. Raises Fault."""
        authorization = head.headers.get(b"authorization", b"")
        scope = self._scopes.get(authorization[:-64])
        if scope is not None:
            return self._check_headers(head, scope, authorization[-64:], body_sha256).key.signer
        identity = self.verify(head, body_sha256)
        return Signer(identity.principal, identity.service, identity.region)

    def signing_key(self, identity: Identity) -> bytes:
        """The key that goes on signing the chunks of a request verified as `identity`. Raises Fault."""
        grant = self._grant(identity.principal.access_key_id, identity.session_token)
        return signing_key(grant.secret, identity.amz_date[:8], identity.region, identity.service)

    def _verify_headers(
        self, head: Head, scope: Scope, signature: bytes, body_sha256: str | None
    ) -> Identity:
        key, amz_date, payload, token = self._check_headers(head, scope, signature, body_sha256)
        return _identity(key.grant, scope, amz_date, signature, payload, token)

    def _check_headers(
        self, head: Head, scope: Scope, signature: bytes, body_sha256: str | None
    ) -> "_Checked":
        headers = head.headers
        amz_date = headers.get(b"x-amz-date") or from_http_date(headers.get(b"date", b""))
        if not -_SKEW_S < self._epoch(amz_date, scope) - self._now() < _SKEW_S:
            self._check_time(amz_date, scope)
        names = tuple(headers)
        is_known = names in scope.complete
        if not is_known:
            _check_all_signed(names, scope)
        told = payload = headers.get(b"x-amz-content-sha256")
        if payload is None:
            if body_sha256 is None:
                raise AssertionError("verify needs the body's hash here")
            payload = body_sha256.encode()
        elif body_sha256 is not None and len(payload) == 64 and payload != body_sha256.encode():
            raise content_mismatch(scope.service)
        sealed = headers.get(b"x-amz-security-token")
        token = "" if sealed is None else sealed.decode("latin-1")
        key = self._key(scope, token)
        query = canonical_query(head.query) if head.query else b""
        _compare(head, scope, query, payload, key, amz_date, signature)
        if told is not None:
            check_payload(told, scope)
        if not is_known and len(scope.complete) < _COMBINATIONS and sum(map(len, names)) < _LONGEST_NAMES:
            scope.complete.add(names)
        return _Checked(key, amz_date, payload, token)

    def _verify_query(self, head: Head, body_sha256: str | None) -> Identity:
        parameters = query_parameters(head.query)
        if b"X-Amz-Signature" not in parameters:
            if sigv2.is_presigned(parameters):
                return self._verify_sigv2(head, parameters)
            raise Fault("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        scope, expires_s = parse_presigned(parameters)
        amz_date = parameters[b"X-Amz-Date"]
        signed_at = self._epoch(amz_date, scope)
        now = self._now()
        if now > signed_at + expires_s:
            raise request_expired(signed_at + expires_s, now)
        if signed_at > now + _S3_SKEW_S:
            raise access_denied("Request is not yet valid")
        _check_all_signed(head.headers, scope)
        payload = head.headers.get(b"x-amz-content-sha256") or parameters.get(b"X-Amz-Content-Sha256")
        if payload is None:
            payload = UNSIGNED.encode() if scope.service == "s3" else (body_sha256 or EMPTY_SHA256).encode()
        token = parameters.get(b"X-Amz-Security-Token", b"").decode("latin-1")
        key = self._key(scope, token)
        signature = parameters[b"X-Amz-Signature"]
        query = canonical_query(head.query, without=b"X-Amz-Signature")
        _compare(head, scope, query, payload, key, amz_date, signature)
        check_payload(payload, scope)
        return _identity(key.grant, scope, amz_date, signature, payload, token)

    def _verify_sigv2(self, head: Head, parameters: Mapping[bytes, bytes]) -> Identity:
        request = sigv2.parse(parameters)
        if self._now() > request.expires:
            raise request_expired(request.expires, self._now())
        grant = self._grant(request.access_key_id, request.token)
        expected = sigv2.signature(head, parameters, request.expires, grant.secret)
        if not hmac.compare_digest(expected, request.signature):
            raise mismatch()
        amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        return Identity(grant.principal, "s3", "us-east-1", amz_date, "", UNSIGNED, request.token)

    def _check_time(self, amz_date: bytes, scope: Scope) -> None:
        signed_at = self._epoch(amz_date, scope)
        now = self._now()
        if scope.service == "s3":
            if abs(now - signed_at) > _S3_SKEW_S:
                raise Fault(
                    "RequestTimeTooSkewed",
                    "The difference between the request time and the current time is too large.",
                    403,
                )
        elif signed_at < now - _SKEW_S:
            limit = _stamp(now - _SKEW_S)
            raise mismatch(
                f"Signature expired: {amz_date.decode()} is now earlier than {limit} ({_stamp(now)} - 5 min.)"
            )
        elif signed_at > now + _SKEW_S:
            limit = _stamp(now + _SKEW_S)
            raise mismatch(
                f"Signature not yet current: {amz_date.decode()} is still later than {limit} "
                f"({_stamp(now)} + 5 min.)"
            )

    def _epoch(self, amz_date: bytes, scope: Scope) -> int:
        epoch = self._dates.get(amz_date)
        if epoch is None:
            epoch = parse_date(amz_date)
            if len(self._dates) >= _REMEMBERED:
                self._dates.clear()
            self._dates[amz_date] = epoch
        if amz_date[:8] != scope.date:
            raise mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.")
        return epoch

    def _key(self, scope: Scope, token: str) -> _Key:
        name = (scope.access_key_id, token, scope.text)
        found = self._keys.get(name)
        if found is None:
            grant = self._grant(scope.access_key_id, token)
            key = signing_key(grant.secret, scope.date.decode(), scope.region, scope.service)
            found = _Key(grant, Signer(grant.principal, scope.service, scope.region), *_halves(key))
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            self._keys[name] = found
        elif found.grant.expires is not None and self._now() >= found.grant.expires:
            raise expired_token()
        return found

    def _grant(self, access_key_id: str, token: str) -> Grant:
        grant = self._keyring.grant(access_key_id, token)
        if grant is None:
            raise invalid_token()
        if grant.expires is not None and self._now() >= grant.expires:
            raise expired_token()
        return grant


class _Checked(NamedTuple):
    key: _Key
    amz_date: bytes
    payload: bytes
    token: str


def _identity(
    grant: Grant, scope: Scope, amz_date: bytes, signature: bytes, payload: bytes, token: str
) -> Identity:
    return Identity(
        grant.principal,
        scope.service,
        scope.region,
        amz_date.decode(),
        signature.decode("latin-1"),
        payload.decode("latin-1"),
        token,
    )


def _check_all_signed(names: Iterable[bytes], scope: Scope) -> None:
    for name in names:
        if name.startswith(b"x-amz-") and name not in scope.signed:
            raise mismatch(f"The header {name.decode('latin-1')} is present but not signed.")


def _compare(
    head: Head, scope: Scope, query: bytes, payload: bytes, key: _Key, amz_date: bytes, signature: bytes
) -> None:
    path = head.path
    path = (_known_path if len(path) <= _LONGEST_PATH else canonical_path)(path, scope.service)
    try:
        values = scope.values(head.headers)
    except KeyError as error:
        name = error.args[0].decode("latin-1")
        raise mismatch(f"The signed header {name} is not present.") from None
    request = scope.canonical % (head.method, path, query, *values, payload)
    if b"  " in request:
        values = tuple(b" ".join(value.split()) if b"  " in value else value for value in values)
        request = scope.canonical % (head.method, path, query, *values, payload)
    digest = hexlify(hashlib.sha256(request).digest())
    inner = key.inner.copy()
    inner.update(b"\n".join((ALGORITHM, amz_date, scope.text, digest)))
    outer = key.outer.copy()
    outer.update(inner.digest())
    if not hmac.compare_digest(hexlify(outer.digest()), signature):
        raise mismatch()


_known_path = lru_cache(_REMEMBERED)(canonical_path)


def _halves(key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """HMAC-SHA256 (RFC 2104) as far as the key decides it; copies of them take in the text."""
    block = key.ljust(64, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))


def _stamp(epoch: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(epoch))
