"""Paths and queries in the one form that signatures are made of.

S3 signs its path as it stands, everybody else signs the path encoded once more. Outside S3 a path must stand in
normal form already (no empty, `.` or `..` segment), because routing reads it as it came: a path that means one
thing signed and another routed is refused.
"""

from urllib.parse import quote, unquote_to_bytes

from clary.domain.faults import Fault

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~"
_PLAIN_PATH = _UNRESERVED + b"/"


def canonical_path(path: bytes, service: str) -> bytes:
    """The path as it is signed. Raises Fault when it could be read in two ways."""
    if not path.translate(None, _PLAIN_PATH) and b"//" not in path:
        return path
    if service == "s3":
        return b"/".join(_encode(unquote_to_bytes(segment)) for segment in path.split(b"/"))
    segments = path.split(b"/")[1:]
    if any(segment in (b".", b"..") for segment in segments) or b"" in segments[:-1]:
        raise Fault("InvalidSignatureException", "The path is not in its normal form.", 403)
    return b"/".join(_encode(segment) for segment in path.split(b"/"))


def canonical_query(query: bytes, without: bytes = b"") -> bytes:
    """The query as it is signed: decoded, encoded again in the one way, sorted."""
    pairs = [
        (_encode(name), _encode(value))
        for name, value in _query_pairs(query)
        if not without or name != without
    ]
    return b"&".join(name + b"=" + value for name, value in sorted(pairs))


def query_parameters(query: bytes) -> dict[bytes, bytes]:
    """The decoded parameters. Raises Fault when one that decides identity stands twice."""
    parameters: dict[bytes, bytes] = {}
    for name, value in _query_pairs(query):
        if name in parameters and name.startswith((b"X-Amz-", b"AWSAccessKeyId", b"Signature", b"Expires")):
            raise Fault(
                "AuthorizationQueryParametersError", f"The parameter {name.decode('latin-1')} stands twice."
            )
        parameters.setdefault(name, value)
    return parameters


def _query_pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b"%20").partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def _encode(value: bytes) -> bytes:
    return quote(value, safe="-_.~").encode()
