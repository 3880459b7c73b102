"""Signs requests with AWS Signature Version 4: the half that clients need."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from clary.wire.canonical import canonical_path, canonical_query
from clary.wire.sessions import Credentials

ALGORITHM = b"AWS4-HMAC-SHA256"


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
    text = "\n".join((ALGORITHM.decode(), added["x-amz-date"], scope, digest))
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
