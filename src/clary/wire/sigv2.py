"""Signature Version 2 in a query, for S3 only: what boto3 writes by default when it presigns in us-east-1.

The headers that it signs (`x-amz-*`, Content-Type, Content-MD5) may stand in the query instead.
"""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from clary.domain.faults import Fault
from clary.wire.heads import Head

_SIGNED_PARAMETERS = frozenset(
    b"accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics "
    b"notification object-lock partNumber policy policyStatus publicAccessBlock replication requestPayment "
    b"response-cache-control response-content-disposition response-content-encoding response-content-language "
    b"response-content-type response-expires restore select select-type tagging torrent uploadId uploads "
    b"versionId versioning versions website storageClass".split()
)


@dataclass(frozen=True, slots=True)
class Presigned:
    access_key_id: str
    signature: bytes
    expires: int
    token: str


def is_presigned(parameters: Mapping[bytes, bytes]) -> bool:
    return b"AWSAccessKeyId" in parameters and b"Signature" in parameters


def parse(parameters: Mapping[bytes, bytes]) -> Presigned:
    expires = parameters.get(b"Expires", b"")
    if not expires.isdigit() or len(expires) > 12:
        raise Fault(
            "AccessDenied", "Query-string authentication requires Expires as a number of seconds.", 403
        )
    return Presigned(
        parameters[b"AWSAccessKeyId"].decode("latin-1"),
        parameters[b"Signature"],
        int(expires),
        parameters.get(b"x-amz-security-token", b"").decode("latin-1"),
    )


def signature(head: Head, parameters: Mapping[bytes, bytes], expires: int, secret: str) -> bytes:
    """The signature that the request should carry."""
    signed = {name.lower(): value for name, value in parameters.items()} | head.headers
    amz = b"".join(b"%b:%b\n" % (name, signed[name]) for name in sorted(signed) if name.startswith(b"x-amz-"))
    text = b"\n".join(
        (
            head.method,
            signed.get(b"content-md5", b""),
            signed.get(b"content-type", b""),
            b"%d" % expires,
            amz + _resource(head),
        )
    )
    return base64.b64encode(hmac.digest(secret.encode(), text, "sha1"))


def _resource(head: Head) -> bytes:
    parts = []
    for part in sorted(head.query.split(b"&")):
        name, mark, value = part.partition(b"=")
        if unquote_to_bytes(name) in _SIGNED_PARAMETERS:
            parts.append(name + mark + unquote_to_bytes(value))
    return head.path + (b"?" + b"&".join(parts) if parts else b"")
