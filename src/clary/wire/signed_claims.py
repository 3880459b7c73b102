"""What a signed request claims, taken apart before anything is believed: key, scope, signed headers, time, payload.

An Authorization header or a presigned query becomes a `Scope`: all that is the same for every request under one key
on one day with the same headers, made ready for `clary.wire.sigv4` to compare signatures with.
"""

import calendar
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from operator import itemgetter
from typing import NamedTuple

from clary.domain.faults import Fault
from clary.wire.signature_faults import incomplete, mismatch, query_error
from clary.wire.signing import ALGORITHM

UNSIGNED = "UNSIGNED-PAYLOAD"

_LONGEST_PRESIGN_S = 7 * 24 * 3600
_HEX64 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(rb"\d{8}T\d{6}Z")


class Scope(NamedTuple):
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


def parse_authorization(prefix: bytes) -> Scope:
    """Everything before the 64 digits of the signature."""
    text = prefix.decode("latin-1")
    algorithm, _, rest = text.partition(" ")
    if algorithm != "AWS4-HMAC-SHA256":
        raise incomplete(f"Authorization header begins with {algorithm[:40]!r}, not with AWS4-HMAC-SHA256.")
    parts = rest.split(",")
    fields = dict(part.strip().partition("=")[::2] for part in parts)
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in fields:
            raise incomplete(f"Authorization header requires '{name}' parameter.")
    if len(parts) != 3:
        raise incomplete("Authorization header must hold Credential, SignedHeaders and Signature, each once.")
    if fields["Signature"] or not prefix.endswith(b"Signature="):
        raise incomplete("Authorization header's 'Signature' must come last and have 64 digits.")
    return _scope(fields["Credential"], fields["SignedHeaders"])


def parse_presigned(parameters: Mapping[bytes, bytes]) -> tuple[Scope, int]:
    if parameters.get(b"X-Amz-Algorithm") != ALGORITHM:
        raise query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    for name in (b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-SignedHeaders"):
        if name not in parameters:
            raise query_error(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
    scope = _scope(
        parameters[b"X-Amz-Credential"].decode("latin-1"),
        parameters[b"X-Amz-SignedHeaders"].decode("latin-1"),
    )
    expires = parameters.get(b"X-Amz-Expires", b"900")
    if not expires.isdigit() or len(expires) > 9:
        raise query_error("X-Amz-Expires should be a number")
    if int(expires) > _LONGEST_PRESIGN_S:
        raise query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
            "less than 604800 seconds"
        )
    return scope, int(expires)


def _scope(credential: str, signed_headers: str) -> Scope:
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        raise incomplete("Credential must be <access key>/<date>/<region>/<service>/aws4_request.")
    names = tuple(signed_headers.encode("latin-1").split(b";"))
    if b"host" not in names:
        raise mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    access_key_id, date, region, service, _ = parts
    text = "/".join(parts[1:]).encode("latin-1")
    signed = signed_headers.encode("latin-1")
    lines = [b"%b:%%b\n" % name.replace(b"%", b"%%") for name in names]
    canonical = b"%b\n%b\n%b\n" + b"".join(lines) + b"\n" + signed.replace(b"%", b"%%") + b"\n%b"
    return Scope(
        access_key_id, date.encode("latin-1"), region, service, text, names, canonical, _values(names), set()
    )


def _values(names: tuple[bytes, ...]) -> Callable[[Mapping[bytes, bytes]], tuple[bytes, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda headers: (headers[name],)


def check_payload(payload: bytes, scope: Scope) -> None:
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


def parse_date(text: bytes) -> int:
    if not _DATE.fullmatch(text):
        raise incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
            "Date must be in ISO-8601 'basic format'."
        )
    try:
        return calendar.timegm(time.strptime(text.decode(), "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise incomplete("Date must be in ISO-8601 'basic format'.") from None


def from_http_date(text: bytes) -> bytes:
    try:
        at = parsedate_to_datetime(text.decode("latin-1"))
    except ValueError:
        return text
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ").encode()
