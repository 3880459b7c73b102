"""GetObjectAttributes: what is known of an object, its parts included, without its payload."""

from collections.abc import Mapping
from typing import Any

from clary.blobs.base import ObjectInfo
from clary.services.s3.base import S3Resource, s3_operation
from clary.services.s3.checksums import checksum_members
from clary.services.s3.errors import invalid_argument
from clary.services.s3.paging import page_limit
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes

_ATTRIBUTES = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


class Inspection(S3Resource):
    @s3_operation("GetObjectAttributes")
    def get_object_attributes(
        self, call: Call, params: shapes.GetObjectAttributesRequest
    ) -> Mapping[str, Any]:
        asked = set(params["ObjectAttributes"])
        if unknown := sorted(asked - _ATTRIBUTES):
            raise invalid_argument(
                "Invalid attribute name specified.", "x-amz-object-attributes", ", ".join(unknown)
            )
        info = self._blobs.head(params["Bucket"], params["Key"])
        known: dict[str, Any] = {
            "ETag": info.etag,  # without its quotes: so S3 has it here
            "StorageClass": "STANDARD",
            "ObjectSize": info.size,
        }
        if info.checksum is not None:
            known["Checksum"] = checksum_members(info.checksum, with_type=True)
        if info.parts:
            known["ObjectParts"] = _parts(info, params)
        told = {name: value for name, value in known.items() if name in asked}
        return {"LastModified": info.modified_at, **told}


def _parts(info: ObjectInfo, params: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the parts, as a read by part number finds them."""
    limit, after = page_limit(params, "MaxParts", "max-parts"), params.get("PartNumberMarker", 0)
    numbered = [(number, size) for number, size in enumerate(info.parts, 1) if number > after]
    page = numbered[:limit]
    return {
        "TotalPartsCount": len(info.parts),
        "PartNumberMarker": after,
        "MaxParts": limit,
        "IsTruncated": len(numbered) > len(page),
        "Parts": [{"PartNumber": number, "Size": size} for number, size in page],
        **({"NextPartNumberMarker": page[-1][0]} if page else {}),
    }
