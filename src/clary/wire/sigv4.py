"""AWS Signature Version 4, both ways: `Verifier` checks requests, `sign` makes them.

A verdict is never remembered; what is remembered are signing keys (they change daily), and of a request that was
accepted the parsed form of its Authorization header up to the signature and which headers it had.

All `x-amz-*` headers must be signed, since they carry meaning.

Faults are raised with the codes of the JSON protocols; `clary.wire.faults` renames them for the others.
"""

import calendar
import hashlib
import hmac
import re
import time
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import msgspec

from clary.domain.faults import Fault, access_denied
from clary.domain.principals import Principal
from clary.wire import sigv2
from clary.wire.canonical import canonical_path, canonical_query, query_parameters
from clary.wire.heads import Head
from clary.wire.sessions import Credentials, Grant, KeyRing, expired_token, invalid_token

__all__ = [
    "Credentials",
    "Identity",
    "KeyRing",
    "Signer",
    "Verifier",
    "needs_body_hash",
    "sign",
    "signing_key",
]

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"

_ALGORITHM = b"AWS4-HMAC-SHA256"
_SKEW_S = 5 * 60
_S3_SKEW_S = 15 * 60
_LONGEST_PRESIGN_S = 7 * 24 * 3600
_HEX64 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(rb"\d{8}T\d{6}Z")
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
        return msgspec.json.decode(text, type=cls)

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


class _Scope(NamedTuple):
    access_key_id: str
    date: bytes
    region: str
    service: str
    text: bytes  # date/region/service/aws4_request
    signed: tuple[bytes, ...]
    canonical: bytes  # the canonical request, with places for method, path, query, signed values and payload
    values: Callable[
        [Mapping[bytes, bytes]], tuple[bytes, ...]
    ]  # of the signed headers; KeyError for an absent one
    complete: set[tuple[bytes, ...]]  # header names seen together of which the signed ones are enough


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
        self._scopes: dict[bytes, _Scope] = {}
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
        identity = self._verify_headers(head, _parse_authorization(prefix), signature, body_sha256)
        if len(self._scopes) >= _REMEMBERED:
            self._scopes.clear()
        self._scopes[prefix] = _parse_authorization(prefix)
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
        self, head: Head, scope: _Scope, signature: bytes, body_sha256: str | None
    ) -> Identity:
        key, amz_date, payload, token = self._check_headers(head, scope, signature, body_sha256)
        return _identity(key.grant, scope, amz_date, signature, payload, token)

    def _check_headers(
        self, head: Head, scope: _Scope, signature: bytes, body_sha256: str | None
    ) -> "_Checked":
        headers = head.headers
        amz_date = headers.get(b"x-amz-date") or _from_http_date(headers.get(b"date", b""))
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
            _check_payload(told, scope)
        if not is_known and len(scope.complete) < _COMBINATIONS and sum(map(len, names)) < _LONGEST_NAMES:
            scope.complete.add(names)
        return _Checked(key, amz_date, payload, token)

    def _verify_query(self, head: Head, body_sha256: str | None) -> Identity:
        parameters = query_parameters(head.query)
        if b"X-Amz-Signature" not in parameters:
            if sigv2.is_presigned(parameters):
                return self._verify_sigv2(head, parameters)
            raise Fault("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        scope, expires_s = _parse_presigned(parameters)
        amz_date = parameters[b"X-Amz-Date"]
        signed_at = self._epoch(amz_date, scope)
        now = self._now()
        if now > signed_at + expires_s:
            raise _request_expired(signed_at + expires_s, now)
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
        _check_payload(payload, scope)
        return _identity(key.grant, scope, amz_date, signature, payload, token)

    def _verify_sigv2(self, head: Head, parameters: Mapping[bytes, bytes]) -> Identity:
        request = sigv2.parse(parameters)
        if self._now() > request.expires:
            raise _request_expired(request.expires, self._now())
        grant = self._grant(request.access_key_id, request.token)
        expected = sigv2.signature(head, parameters, request.expires, grant.secret)
        if not hmac.compare_digest(expected, request.signature):
            raise _mismatch()
        amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        return Identity(grant.principal, "s3", "us-east-1", amz_date, "", UNSIGNED, request.token)

    def _check_time(self, amz_date: bytes, scope: _Scope) -> None:
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
            raise _mismatch(
                f"Signature expired: {amz_date.decode()} is now earlier than {limit} ({_stamp(now)} - 5 min.)"
            )
        elif signed_at > now + _SKEW_S:
            limit = _stamp(now + _SKEW_S)
            raise _mismatch(
                f"Signature not yet current: {amz_date.decode()} is still later than {limit} "
                f"({_stamp(now)} + 5 min.)"
            )

    def _epoch(self, amz_date: bytes, scope: _Scope) -> int:
        epoch = self._dates.get(amz_date)
        if epoch is None:
            epoch = _parse_date(amz_date)
            if len(self._dates) >= _REMEMBERED:
                self._dates.clear()
            self._dates[amz_date] = epoch
        if amz_date[:8] != scope.date:
            raise _mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.")
        return epoch

    def _key(self, scope: _Scope, token: str) -> _Key:
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
    grant: Grant, scope: _Scope, amz_date: bytes, signature: bytes, payload: bytes, token: str
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


def _check_all_signed(names: Iterable[bytes], scope: _Scope) -> None:
    for name in names:
        if name.startswith(b"x-amz-") and name not in scope.signed:
            raise _mismatch(f"The header {name.decode('latin-1')} is present but not signed.")


def _compare(
    head: Head, scope: _Scope, query: bytes, payload: bytes, key: _Key, amz_date: bytes, signature: bytes
) -> None:
    path = head.path
    path = (_known_path if len(path) <= _LONGEST_PATH else canonical_path)(path, scope.service)
    try:
        values = scope.values(head.headers)
    except KeyError as error:
        name = error.args[0].decode("latin-1")
        raise _mismatch(f"The signed header {name} is not present.") from None
    request = scope.canonical % (head.method, path, query, *values, payload)
    if b"  " in request:
        values = tuple(b" ".join(value.split()) if b"  " in value else value for value in values)
        request = scope.canonical % (head.method, path, query, *values, payload)
    digest = hexlify(hashlib.sha256(request).digest())
    inner = key.inner.copy()
    inner.update(b"\n".join((_ALGORITHM, amz_date, scope.text, digest)))
    outer = key.outer.copy()
    outer.update(inner.digest())
    if not hmac.compare_digest(hexlify(outer.digest()), signature):
        raise _mismatch()


_known_path = lru_cache(_REMEMBERED)(canonical_path)


def _halves(key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """HMAC-SHA256 (RFC 2104) as far as the key decides it; copies of them take in the text."""
    block = key.ljust(64, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))


def sign(
    credentials: Credentials,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body_sha256: str,
    *,
    service: str,
    region: str,
    at: datetime,
) -> dict[str, str]:
    """The headers to add so that a request is signed. `headers` must hold `host`; all of them are signed."""
    added = {"x-amz-date": at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")}
    if service == "s3":
        added["x-amz-content-sha256"] = body_sha256
    if credentials.session_token:
        added["x-amz-security-token"] = credentials.session_token
    signed = {name.lower(): " ".join(value.split()) for name, value in {**headers, **added}.items()}
    path, _, query = target.partition("?")
    names = ";".join(sorted(signed))
    scope = f"{added['x-amz-date'][:8]}/{region}/{service}/aws4_request"
    request = "\n".join(
        (
            method,
            canonical_path(path.encode(), service).decode(),
            canonical_query(query.encode()).decode() if query else "",
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            body_sha256,
        )
    )
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join((_ALGORITHM.decode(), added["x-amz-date"], scope, digest))
    key = signing_key(credentials.secret_access_key, scope[:8], region, service)
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    added["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return added


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def content_mismatch(service: str) -> Fault:
    """The body is not the one that was signed."""
    if service == "s3":
        return Fault(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    return _mismatch()


def _parse_authorization(prefix: bytes) -> _Scope:
    """Everything before the 64 digits of the signature."""
    text = prefix.decode("latin-1")
    algorithm, _, rest = text.partition(" ")
    if algorithm != "AWS4-HMAC-SHA256":
        raise _incomplete(f"Authorization header begins with {algorithm[:40]!r}, not with AWS4-HMAC-SHA256.")
    parts = rest.split(",")
    fields = dict(part.strip().partition("=")[::2] for part in parts)
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in fields:
            raise _incomplete(f"Authorization header requires '{name}' parameter.")
    if len(parts) != 3:
        raise _incomplete(
            "Authorization header must hold Credential, SignedHeaders and Signature, each once."
        )
    if fields["Signature"] or not prefix.endswith(b"Signature="):
        raise _incomplete("Authorization header's 'Signature' must come last and have 64 digits.")
    return _scope(fields["Credential"], fields["SignedHeaders"])


def _parse_presigned(parameters: Mapping[bytes, bytes]) -> tuple[_Scope, int]:
    if parameters.get(b"X-Amz-Algorithm") != _ALGORITHM:
        raise _query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    for name in (b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-SignedHeaders"):
        if name not in parameters:
            raise _query_error(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
    scope = _scope(
        parameters[b"X-Amz-Credential"].decode("latin-1"),
        parameters[b"X-Amz-SignedHeaders"].decode("latin-1"),
    )
    expires = parameters.get(b"X-Amz-Expires", b"900")
    if not expires.isdigit() or len(expires) > 9:
        raise _query_error("X-Amz-Expires should be a number")
    if int(expires) > _LONGEST_PRESIGN_S:
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
            "less than 604800 seconds"
        )
    return scope, int(expires)


def _scope(credential: str, signed_headers: str) -> _Scope:
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        raise _incomplete("Credential must be <access key>/<date>/<region>/<service>/aws4_request.")
    names = tuple(signed_headers.encode("latin-1").split(b";"))
    if b"host" not in names:
        raise _mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    access_key_id, date, region, service, _ = parts
    text = "/".join(parts[1:]).encode("latin-1")
    signed = signed_headers.encode("latin-1")
    lines = [b"%b:%%b\n" % name.replace(b"%", b"%%") for name in names]
    canonical = b"%b\n%b\n%b\n" + b"".join(lines) + b"\n" + signed.replace(b"%", b"%%") + b"\n%b"
    return _Scope(
        access_key_id, date.encode("latin-1"), region, service, text, names, canonical, _values(names), set()
    )


def _values(names: tuple[bytes, ...]) -> Callable[[Mapping[bytes, bytes]], tuple[bytes, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda headers: (headers[name],)


def _check_payload(payload: bytes, scope: _Scope) -> None:
    text = payload.decode("latin-1")
    if _HEX64.fullmatch(text) or (scope.service == "s3" and text in PAYLOAD_WORDS):
        return
    raise Fault(
        "InvalidRequest" if scope.service == "s3" else "InvalidSignatureException",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        400,
    )


PAYLOAD_WORDS = frozenset(
    (
        UNSIGNED,
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    )
)


def _parse_date(text: bytes) -> int:
    if not _DATE.fullmatch(text):
        raise _incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
            "Date must be in ISO-8601 'basic format'."
        )
    try:
        return calendar.timegm(time.strptime(text.decode(), "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise _incomplete("Date must be in ISO-8601 'basic format'.") from None


def _from_http_date(text: bytes) -> bytes:
    try:
        at = parsedate_to_datetime(text.decode("latin-1"))
    except ValueError:
        return text
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ").encode()


def _stamp(epoch: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(epoch))


def _mismatch(
    message: str = "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details.",
) -> Fault:
    return Fault("InvalidSignatureException", message, 403)


def _incomplete(message: str) -> Fault:
    return Fault("IncompleteSignatureException", message, 403)


def _query_error(message: str) -> Fault:
    return Fault("AuthorizationQueryParametersError", message)


def _request_expired(expires: float, now: float) -> Fault:
    return Fault(
        "AccessDeniedException",
        "Request has expired",
        403,
        members={"Expires": _iso(expires), "ServerTime": _iso(now)},
    )


def _iso(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
