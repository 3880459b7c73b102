"""ListObjects and ListObjectsV2: the same pages, told in two ways."""

from collections.abc import Mapping
from typing import Any

from clary.blobs.base import ObjectInfo, ObjectPage
from clary.services.s3.attributes import quoted
from clary.services.s3.base import S3Resource, s3_operation
from clary.services.s3.errors import not_implemented
from clary.services.s3.paging import NameEncoder, decode_token, encode_token, page_limit
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes


class Listing(S3Resource):
    @s3_operation("ListObjects")
    def list_objects(self, call: Call, params: shapes.ListObjectsRequest) -> Mapping[str, Any]:
        marker = params.get("Marker", "")
        page = self._page(params, marker)
        answer = self._told(page, params, with_owner=True)
        answer["Marker"] = NameEncoder(params)(marker)
        if page.next is not None and params.get("Delimiter"):
            # Without a delimiter the last key says as much, and S3 leaves it at that.
            answer["NextMarker"] = NameEncoder(params)(page.next)
        return answer

    @s3_operation("ListObjectsV2")
    def list_objects_v2(self, call: Call, params: shapes.ListObjectsV2Request) -> Mapping[str, Any]:
        token, start_after = params.get("ContinuationToken"), params.get("StartAfter", "")
        page = self._page(params, start_after if token is None else decode_token(token))
        answer = self._told(page, params, with_owner=params.get("FetchOwner", False))
        answer["KeyCount"] = len(page.objects) + len(page.prefixes)
        if token is not None:
            answer["ContinuationToken"] = token
        if start_after:
            answer["StartAfter"] = NameEncoder(params)(start_after)
        if page.next is not None:
            answer["NextContinuationToken"] = encode_token(page.next)
        return answer

    @s3_operation("ListObjectVersions")
    def list_object_versions(self, call: Call, params: shapes.ListObjectVersionsRequest) -> Mapping[str, Any]:
        """Every object has the one version called null."""
        marker = params.get("KeyMarker", "")
        page, encode = self._page(params, marker), NameEncoder(params)
        answer = self._told(page, params, with_owner=True)
        version = {"IsLatest": True, "VersionId": "null"}
        answer["Versions"] = [{**content, **version} for content in answer.pop("Contents")]
        answer |= {"KeyMarker": encode(marker), "VersionIdMarker": params.get("VersionIdMarker", "")}
        if page.next is not None:
            answer |= {"NextKeyMarker": encode(page.next), "NextVersionIdMarker": "null"}
        return answer

    def _page(self, params: Mapping[str, Any], start_after: str) -> ObjectPage:
        limit = page_limit(params, "MaxKeys", "max-keys")
        if params.get("OptionalObjectAttributes"):
            raise not_implemented("OptionalObjectAttributes")
        if limit == 0:
            self._blobs.bucket(params["Bucket"])
            return ObjectPage((), (), None)
        return self._blobs.objects(
            params["Bucket"],
            prefix=params.get("Prefix", ""),
            delimiter=params.get("Delimiter", ""),
            start_after=start_after,
            limit=limit,
        )

    def _told(self, page: ObjectPage, params: Mapping[str, Any], *, with_owner: bool) -> dict[str, Any]:
        encode = NameEncoder(params)
        owner = {"Owner": {"ID": self._holdings.owner_id}} if with_owner else {}
        answer: dict[str, Any] = {
            "Name": params["Bucket"],
            "Prefix": encode(params.get("Prefix", "")),
            "MaxKeys": min(params.get("MaxKeys", 1000), 1000),
            "IsTruncated": page.next is not None,
            "Contents": [{**_content(info, encode), **owner} for info in page.objects],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.prefixes],
        }
        if params.get("Delimiter"):
            answer["Delimiter"] = encode(params["Delimiter"])
        if params.get("EncodingType"):
            answer["EncodingType"] = params["EncodingType"]
        return answer


def _content(info: ObjectInfo, encode: NameEncoder) -> dict[str, Any]:
    content: dict[str, Any] = {
        "Key": encode(info.key),
        "LastModified": info.modified_at,
        "ETag": quoted(info.etag),
        "Size": info.size,
        "StorageClass": "STANDARD",
    }
    if info.checksum is not None:
        content |= {"ChecksumAlgorithm": [info.checksum.algorithm], "ChecksumType": info.checksum.type}
    return content
