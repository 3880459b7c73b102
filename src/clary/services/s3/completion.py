"""Whether the parts a client names make an object: order, presence, sizes, and what it promises of the whole. Pure."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from clary.blobs.base import Checksum, PartInfo, UploadInfo
from clary.domain.faults import Fault
from clary.services.s3.checksums import given_in, of_parts
from clary.services.s3.errors import bad_digest, invalid_part, invalid_request, malformed_xml

SMALLEST_PART = 5 << 20


def chosen_parts(upload: UploadInfo, stored: Sequence[PartInfo], params: Mapping[str, Any]) -> list[PartInfo]:
    """The parts that the object is to have, in order."""
    named = (params.get("MultipartUpload") or {}).get("Parts") or []
    if not named or any("PartNumber" not in part or "ETag" not in part for part in named):
        raise malformed_xml()
    numbers = [part["PartNumber"] for part in named]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise Fault(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
        )
    by_number = {part.number: part for part in stored}
    parts = [_chosen(upload, by_number.get(one["PartNumber"]), one) for one in named]
    _check_sizes(parts)
    return parts


def whole_checksum(upload: UploadInfo, parts: Sequence[PartInfo]) -> Checksum | None:
    return of_parts(upload.checksum_algorithm, upload.checksum_type, parts)


def check_promises(
    upload: UploadInfo, checksum: Checksum | None, size: int, params: Mapping[str, Any]
) -> None:
    """What the request says of the whole object."""
    kind = params.get("ChecksumType", "")
    if kind and kind != upload.checksum_type:
        raise invalid_request(
            f"The upload was created using the {upload.checksum_type} checksum mode. The complete request must use the"
            " same checksum mode."
        )
    promised_size = params.get("MpuObjectSize")
    if promised_size is not None and promised_size != size:
        raise invalid_request(
            f"The provided 'x-amz-mp-object-size' header value {promised_size} does not match what was computed: {size}"
        )
    promised = given_in(params)
    if promised is not None and checksum is not None and promised[0] == checksum.algorithm:
        values = {checksum.value, checksum.value.rpartition("-")[0]}
        if promised[1] not in values:
            raise bad_digest(checksum.algorithm)


def _chosen(upload: UploadInfo, stored: PartInfo | None, named: Mapping[str, Any]) -> PartInfo:
    if stored is None or named["ETag"].strip('"') != stored.etag:
        raise invalid_part()
    given = given_in(named)
    if given is None:
        if upload.checksum_asked and upload.checksum_type == "COMPOSITE":
            raise invalid_request(
                f"The upload was created using a {upload.checksum_algorithm.lower()} checksum. The complete request"
                f" must include the checksum for each part. It was missing for part {stored.number} in the request."
            )
    elif (
        stored.checksum is not None
        and given[0] == stored.checksum.algorithm
        and given[1] != stored.checksum.value
    ):
        raise invalid_part()
    return stored


def _check_sizes(parts: Sequence[PartInfo]) -> None:
    for part in parts[:-1]:
        if part.size < SMALLEST_PART:
            raise Fault(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                members={
                    "ProposedSize": str(part.size),
                    "MinSizeAllowed": str(SMALLEST_PART),
                    "PartNumber": str(part.number),
                    "ETag": part.etag,
                },
            )
