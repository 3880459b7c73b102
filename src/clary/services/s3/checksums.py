"""S3's checksums: what a request promises of its body, computed while it is read, and told again on demand.

A checksum comes as a header, as a trailer behind the body, or not at all; then CRC64NVME is computed, so that
every object has one. Objects uploaded in parts have either a checksum of their parts' checksums (COMPOSITE,
`value-N`) or one of all their bytes (FULL_OBJECT), which for the CRCs follows from those of the parts.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from awscrt import checksums as crt

from clary.blobs.base import Checksum, ChecksumType, PartInfo
from clary.domain.faults import Fault
from clary.services.s3.errors import bad_digest, invalid_request
from clary.wire.operations import Call

DEFAULT = "CRC64NVME"


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, compute: Callable[[bytes, int], int], size: int) -> None:
        self._compute = compute
        self._size = size
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._compute(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _XxHash:
    def __init__(self, hasher: Any) -> None:
        self._hasher = hasher
        self._final: bytes | None = None

    def update(self, data: bytes, /) -> None:
        self._hasher.update(data)

    def digest(self) -> bytes:
        if self._final is None:
            self._final = cast(bytes, self._hasher.finalize())  # can be asked for once
        return self._final


@dataclass(frozen=True, slots=True)
class _Algorithm:
    begin: Callable[[], Digest]
    size: int
    combine: Callable[[int, int, int], int] | None = None


_ALGORITHMS: Mapping[str, _Algorithm] = {
    "CRC32": _Algorithm(lambda: _Crc(crt.crc32, 4), 4, crt.combine_crc32),
    "CRC32C": _Algorithm(lambda: _Crc(crt.crc32c, 4), 4, crt.combine_crc32c),
    "CRC64NVME": _Algorithm(lambda: _Crc(crt.crc64nvme, 8), 8, crt.combine_crc64nvme),
    "MD5": _Algorithm(lambda: hashlib.md5(usedforsecurity=False), 16),
    "SHA1": _Algorithm(lambda: hashlib.sha1(usedforsecurity=False), 20),
    "SHA256": _Algorithm(hashlib.sha256, 32),
    "SHA512": _Algorithm(hashlib.sha512, 64),
    "XXHASH64": _Algorithm(lambda: _XxHash(crt.XXHash.new_xxhash64()), 8),
    "XXHASH3": _Algorithm(lambda: _XxHash(crt.XXHash.new_xxhash3_64()), 8),
    "XXHASH128": _Algorithm(lambda: _XxHash(crt.XXHash.new_xxhash3_128()), 16),
}
_HEADERS = {name: f"x-amz-checksum-{name.lower()}" for name in _ALGORITHMS}
_TRAILER = re.compile(r"x-amz-checksum-([a-z0-9]+)")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a request says its body's checksum is. `trailer` names the one that follows the body."""

    algorithm: str = ""
    value: str = ""
    trailer: str = ""
    content_md5: str = ""


def promise_of(params: Mapping[str, Any], headers: Mapping[str, str]) -> Promise:
    """Reads and checks it, before any of the body is wanted."""
    content_md5 = _check_content_md5(params.get("ContentMD5", ""))
    given = [name for name in _ALGORITHMS if f"Checksum{name}" in params]
    trailer, trailing = _trailer(headers)
    if len(given) + bool(trailing) > 1:
        raise invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    named = params.get("ChecksumAlgorithm", "")
    if named and not given and not trailing:
        raise invalid_request(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers"
            " were found."
        )
    algorithm = trailing or "".join(given)
    if named and named != algorithm:
        raise invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid.")
    value = params[f"Checksum{algorithm}"] if given else ""
    if given:
        _check_value(algorithm, value)
    return Promise(algorithm, value, trailer, content_md5)


def check_whole_body(call: Call, *, required: bool = False) -> None:
    """Holds a body that was read whole, such as a list of deletions, against what its headers say of it."""
    headers = call.headers
    given = {f"Checksum{name}": headers[header] for name, header in _HEADERS.items() if header in headers}
    content_md5 = headers.get("content-md5", "")
    if required and not (given or content_md5 or headers.get("x-amz-trailer")):
        raise invalid_request("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    digests = BodyDigests(promise_of({**given, "ContentMD5": content_md5}, headers))
    digests.update(call.body)
    digests.verify(call.trailers)


class BodyDigests:
    """Computes all that is wanted of a body while it passes: MD5 for the etag, the promised checksum, another."""

    def __init__(self, promise: Promise, wanted: str = "") -> None:
        """`wanted`: the checksum to keep, if not the promised one."""
        self._promise = promise
        self._kept = wanted or promise.algorithm or DEFAULT
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._others = {name: begin(name) for name in {self._kept, promise.algorithm} - {""}}

    def update(self, data: bytes) -> None:
        self._md5.update(data)
        for digest in self._others.values():
            digest.update(data)

    def verify(self, trailers: Mapping[str, str]) -> None:
        """Once the body has ended. Raises BadDigest."""
        if self._promise.content_md5 and self._promise.content_md5 != _base64(self._md5.digest()):
            raise bad_digest("Content-MD5")
        promised = self._promised(trailers)
        if promised and promised != self._value(self._promise.algorithm):
            raise bad_digest(self._promise.algorithm)

    @property
    def etag(self) -> str:
        return self._md5.hexdigest()

    @property
    def checksum(self) -> Checksum:
        return Checksum(self._kept, self._value(self._kept))

    def told(self) -> dict[str, str]:
        """The members of the answer to the upload: the promised checksum, or the one that was computed."""
        name = self._promise.algorithm or self._kept
        return {f"Checksum{name}": self._value(name)}

    def _promised(self, trailers: Mapping[str, str]) -> str:
        if not self._promise.trailer:
            return self._promise.value
        value = trailers.get(self._promise.trailer)
        if value is None:
            raise Fault(
                "MalformedTrailerError",
                "The request contained trailing data that was not well-formed or did not conform to our published"
                " schema.",
            )
        return value

    def _value(self, algorithm: str) -> str:
        return _base64(self._others[algorithm].digest())


def begin(algorithm: str) -> Digest:
    return _ALGORITHMS[algorithm].begin()


def check_algorithm(algorithm: str) -> str:
    if algorithm not in _ALGORITHMS:
        raise invalid_request("Checksum algorithm provided is unsupported.")
    return algorithm


def upload_type(algorithm: str, asked: str) -> ChecksumType:
    """The type of an upload's checksum. Only the CRCs of parts say something of the whole."""
    can_combine = _ALGORITHMS[algorithm].combine is not None
    allowed = [
        *(["COMPOSITE"] if algorithm != "CRC64NVME" else []),
        *(["FULL_OBJECT"] if can_combine else []),
    ]
    if asked and asked not in allowed:
        raise invalid_request(
            f"The {asked} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        )
    return cast(ChecksumType, asked or allowed[0])


def of_parts(algorithm: str, kind: ChecksumType, parts: Sequence[PartInfo]) -> Checksum | None:
    """The checksum of the object made of these parts; None where a part has none of that algorithm."""
    known = [part.checksum for part in parts if part.checksum is not None]
    if not algorithm or len(known) < len(parts) or any(c.algorithm != algorithm for c in known):
        return None
    raw = [base64.b64decode(checksum.value) for checksum in known]
    if kind == "COMPOSITE":
        digest = begin(algorithm)
        digest.update(b"".join(raw))
        return Checksum(algorithm, f"{_base64(digest.digest())}-{len(parts)}", "COMPOSITE")
    combine = _ALGORITHMS[algorithm].combine
    assert combine is not None, "an upload of this type is refused when it begins"
    whole = 0
    for value, part in zip(raw, parts, strict=True):
        whole = combine(whole, int.from_bytes(value, "big"), part.size)
    return Checksum(algorithm, _base64(whole.to_bytes(_ALGORITHMS[algorithm].size, "big")), "FULL_OBJECT")


def checksum_members(checksum: Checksum, *, with_type: bool) -> dict[str, str]:
    members = {f"Checksum{checksum.algorithm}": checksum.value}
    return members | {"ChecksumType": checksum.type} if with_type else members


def given_in(members: Mapping[str, Any]) -> tuple[str, str] | None:
    """The algorithm and value among a structure's members, if there is one."""
    return next(((n, members[f"Checksum{n}"]) for n in _ALGORITHMS if members.get(f"Checksum{n}")), None)


def _trailer(headers: Mapping[str, str]) -> tuple[str, str]:
    for name in headers.get("x-amz-trailer", "").split(","):
        name = name.strip().lower()
        match = _TRAILER.fullmatch(name)
        if match is not None:
            algorithm = match[1].upper()
            if algorithm not in _ALGORITHMS:
                raise invalid_request("The value specified in the x-amz-trailer header is not supported")
            return name, algorithm
    return "", ""


def _check_content_md5(value: str) -> str:
    if value and len(_decoded(value)) != 16:
        raise Fault("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return value


def _check_value(algorithm: str, value: str) -> None:
    if len(_decoded(value)) != _ALGORITHMS[algorithm].size:
        raise invalid_request(f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.")


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
