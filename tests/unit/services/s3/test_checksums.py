"""Checksums computed in pieces, of parts and of the whole."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.blobs.base import Checksum, ChecksumType, PartInfo
from clary.domain.faults import Fault
from clary.services.s3.checksums import BodyDigests, Promise, begin, of_parts, promise_of, upload_type

# Of b"123456789": the check values of the catalogues, and the published vectors of the hashes.
KNOWN = {
    "CRC32": "cbf43926",
    "CRC32C": "e3069283",
    "CRC64NVME": "ae8b14860a799888",
    "MD5": "25f9e794323b453885f5181f1b624d0b",
    "SHA1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "SHA256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "XXHASH64": "8cb841db40e6ae83",
}


@pytest.mark.parametrize("algorithm", sorted(KNOWN))
def test_the_published_values_come_out(algorithm: str) -> None:
    digest = begin(algorithm)
    digest.update(b"1234")
    digest.update(b"56789")
    assert digest.digest().hex() == KNOWN[algorithm]
    assert digest.digest().hex() == KNOWN[algorithm]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_the_parts_crcs_give_that_of_the_whole(algorithm: str, bodies: list[bytes]) -> None:
    whole = begin(algorithm)
    whole.update(b"".join(bodies))
    expected = base64.b64encode(whole.digest()).decode()
    assert of_parts(
        algorithm, "FULL_OBJECT", [part_of(algorithm, n, body) for n, body in enumerate(bodies)]
    ) == (Checksum(algorithm, expected, "FULL_OBJECT"))


def part_of(algorithm: str, number: int, body: bytes) -> PartInfo:
    digests = BodyDigests(Promise(), algorithm)
    digests.update(body)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return PartInfo(
        number=number, size=len(body), etag=digests.etag, modified_at=at, checksum=digests.checksum
    )


def test_parts_without_the_algorithm_give_no_checksum() -> None:
    assert of_parts("CRC32", "FULL_OBJECT", [part_of("CRC32", 1, b"a"), part_of("SHA1", 2, b"b")]) is None


@pytest.mark.parametrize(
    ("algorithm", "asked", "kind"),
    [
        ("CRC32", "", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT", "FULL_OBJECT"),
        ("CRC64NVME", "", "FULL_OBJECT"),
        ("SHA256", "", "COMPOSITE"),
    ],
)
def test_the_type_follows_from_the_algorithm(algorithm: str, asked: str, kind: ChecksumType) -> None:
    assert upload_type(algorithm, asked) == kind


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({"ChecksumCRC32": "AAAAAA==", "ChecksumSHA1": "x"}, {}),
        ({"ChecksumCRC32": "AAAAAA=="}, {"x-amz-trailer": "x-amz-checksum-crc32"}),
        ({"ChecksumCRC32": "AAAAAA"}, {}),
        ({"ChecksumCRC32": "not base64"}, {}),
        ({"ChecksumAlgorithm": "CRC32"}, {}),
        ({"ChecksumAlgorithm": "SHA1", "ChecksumCRC32": "AAAAAA=="}, {}),
        ({}, {"x-amz-trailer": "x-amz-checksum-crc7"}),
    ],
)
def test_promises_that_contradict_themselves_are_refused(
    params: dict[str, str], headers: dict[str, str]
) -> None:
    with pytest.raises(Fault) as caught:
        promise_of(params, headers)
    assert caught.value.code == "InvalidRequest"


def test_a_trailer_that_never_came_is_a_fault() -> None:
    digests = BodyDigests(promise_of({}, {"x-amz-trailer": "x-amz-checksum-crc32"}))
    with pytest.raises(Fault) as caught:
        digests.verify({})
    assert caught.value.code == "MalformedTrailerError"
