"""Objects uploaded in parts: begun, filled in any order, then completed or aborted."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from clary.blobs.base import (
    Checksum,
    NoSuchKey,
    NoSuchPart,
    NoSuchUpload,
    ObjectInfo,
    PartInfo,
    UploadInfo,
)
from clary.services.s3.attributes import attributes_of, encryption, quoted
from clary.services.s3.base import S3Resource, s3_operation
from clary.services.s3.bodies import check_size, receive, transfer
from clary.services.s3.checksums import DEFAULT as DEFAULT_ALGORITHM
from clary.services.s3.checksums import (
    BodyDigests,
    Promise,
    check_algorithm,
    checksum_members,
    promise_of,
    upload_type,
)
from clary.services.s3.completion import check_promises, chosen_parts, whole_checksum
from clary.services.s3.conditions import Span, check_copy_source, copy_range, write_condition
from clary.services.s3.copies import copy_source
from clary.services.s3.errors import invalid_argument, invalid_request, too_large
from clary.services.s3.paging import NameEncoder, page_limit
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes

MOST_PARTS = 10_000


class Multipart(S3Resource):
    @s3_operation("CreateMultipartUpload")
    def create_multipart_upload(
        self, call: Call, params: shapes.CreateMultipartUploadRequest
    ) -> Mapping[str, Any]:
        asked, kind = params.get("ChecksumAlgorithm", ""), params.get("ChecksumType", "")
        if kind and not asked:
            raise invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )
        algorithm = check_algorithm(asked or DEFAULT_ALGORITHM)
        attributes = attributes_of(params)
        upload = self._blobs.create_upload(
            params["Bucket"],
            params["Key"],
            attributes,
            checksum_algorithm=algorithm,
            checksum_type=upload_type(algorithm, kind),
            checksum_asked=bool(asked),
        )
        return {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            **_checksum_kind(upload),
            **encryption(attributes),
        }

    @s3_operation("UploadPart")
    def upload_part(self, call: Call, params: shapes.UploadPartRequest) -> Mapping[str, Any]:
        limit = self._holdings.max_object_bytes
        number = _part_number(params)
        upload = self._blobs.upload(params["Bucket"], params["Key"], params["UploadId"])
        check_size(params.get("ContentLength"), call.headers, limit)
        promise = promise_of(params, call.headers)
        _check_part_algorithm(upload, promise)
        digests = BodyDigests(promise, upload.checksum_algorithm)
        with self._blobs.stage() as staged:
            receive(params.get("Body", b""), staged, digests, limit)
            part = self._blobs.put_part(upload, number, staged, etag=digests.etag, checksum=digests.checksum)
        return {"ETag": quoted(part.etag), **digests.told(), **encryption(upload.attributes)}

    @s3_operation("UploadPartCopy")
    def upload_part_copy(self, call: Call, params: shapes.UploadPartCopyRequest) -> Mapping[str, Any]:
        number, location = _part_number(params), copy_source(params["CopySource"])
        upload = self._blobs.upload(params["Bucket"], params["Key"], params["UploadId"])
        digests = BodyDigests(Promise(), upload.checksum_algorithm)
        with self._blobs.open(*location) as source, self._blobs.stage() as staged:
            check_copy_source(source.info, params)
            span = _copied_span(source.info, params)
            transfer(source, span, staged, digests)
            part = self._blobs.put_part(upload, number, staged, etag=digests.etag, checksum=digests.checksum)
        result = {"ETag": quoted(part.etag), "LastModified": part.modified_at, **digests.told()}
        return {"CopyPartResult": result, **encryption(upload.attributes)}

    @s3_operation("CompleteMultipartUpload")
    def complete_multipart_upload(
        self, call: Call, params: shapes.CompleteMultipartUploadRequest
    ) -> Mapping[str, Any]:
        bucket, key, upload_id = params["Bucket"], params["Key"], params["UploadId"]
        try:
            return _completed(self._complete(self._blobs.upload(bucket, key, upload_id), params))
        except (NoSuchUpload, NoSuchPart):
            # A client that never saw our answer asks again, perhaps while we still work: it is told the same.
            info = self._completed_before(bucket, key, upload_id)
            if info is None:
                raise
            return _completed(info)

    @s3_operation("AbortMultipartUpload")
    def abort_multipart_upload(self, call: Call, params: shapes.AbortMultipartUploadRequest) -> None:
        self._blobs.abort(params["Bucket"], params["Key"], params["UploadId"])

    @s3_operation("ListParts")
    def list_parts(self, call: Call, params: shapes.ListPartsRequest) -> Mapping[str, Any]:
        limit = page_limit(params, "MaxParts", "max-parts")
        after = params.get("PartNumberMarker", 0)
        upload = self._blobs.upload(params["Bucket"], params["Key"], params["UploadId"])
        found = self._blobs.parts(upload, after=after, limit=limit + 1)
        parts, more = found[:limit], len(found) > limit > 0
        answer: dict[str, Any] = {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            "PartNumberMarker": after,
            "MaxParts": limit,
            "IsTruncated": more,
            "Parts": [_part(upload, part) for part in parts],
            "StorageClass": "STANDARD",
            **self._people(),
            **_checksum_kind(upload),
        }
        if parts:
            answer["NextPartNumberMarker"] = parts[-1].number
        return answer

    @s3_operation("ListMultipartUploads")
    def list_multipart_uploads(
        self, call: Call, params: shapes.ListMultipartUploadsRequest
    ) -> Mapping[str, Any]:
        encode = NameEncoder(params)
        limit = page_limit(params, "MaxUploads", "max-uploads") or 1
        key_marker = params.get("KeyMarker", "")
        id_marker = params.get("UploadIdMarker", "") if key_marker else ""
        page = self._blobs.uploads(
            params["Bucket"],
            prefix=params.get("Prefix", ""),
            delimiter=params.get("Delimiter", ""),
            start_after=(key_marker, id_marker),
            limit=limit,
        )
        answer: dict[str, Any] = {
            "Bucket": params["Bucket"],
            "KeyMarker": encode(key_marker),
            "UploadIdMarker": id_marker,
            "Prefix": encode(params.get("Prefix", "")),
            "MaxUploads": limit,
            "IsTruncated": page.next is not None,
            "Uploads": [self._upload(upload, encode) for upload in page.uploads],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.prefixes],
        }
        if params.get("Delimiter"):
            answer["Delimiter"] = encode(params["Delimiter"])
        if params.get("EncodingType"):
            answer["EncodingType"] = params["EncodingType"]
        if page.next is not None:
            answer["NextKeyMarker"], answer["NextUploadIdMarker"] = encode(page.next[0]), page.next[1]
        return answer

    def _complete(self, upload: UploadInfo, params: shapes.CompleteMultipartUploadRequest) -> ObjectInfo:
        parts = chosen_parts(upload, self._blobs.parts(upload), params)
        size = sum(part.size for part in parts)
        if size > self._holdings.max_object_bytes:
            raise too_large(size, self._holdings.max_object_bytes)
        checksum = whole_checksum(upload, parts)
        check_promises(upload, checksum, size, params)
        condition = write_condition(params)
        return self._blobs.complete(
            upload, parts, etag=_etag(parts), checksum=checksum, **condition._asdict()
        )

    def _upload(self, upload: UploadInfo, encode: NameEncoder) -> dict[str, Any]:
        return {
            "Key": encode(upload.key),
            "UploadId": upload.upload_id,
            "Initiated": upload.started_at,
            "StorageClass": "STANDARD",
            **self._people(),
            **_checksum_kind(upload),
        }

    def _people(self) -> dict[str, Any]:
        return {"Owner": {"ID": self._holdings.owner_id}, "Initiator": {"ID": self._holdings.owner_id}}

    def _completed_before(self, bucket: str, key: str, upload_id: str) -> ObjectInfo | None:
        try:
            info = self._blobs.head(bucket, key)
        except NoSuchKey:
            return None
        return info if info.upload_id == upload_id else None


def _part_number(params: Mapping[str, Any]) -> int:
    number: int = params["PartNumber"]
    if not 1 <= number <= MOST_PARTS:
        raise invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive", "partNumber", str(number)
        )
    return number


def _check_part_algorithm(upload: UploadInfo, promise: Promise) -> None:
    """Who has named an algorithm for the whole cannot use another one for a part."""
    if upload.checksum_asked and promise.algorithm not in ("", upload.checksum_algorithm):
        raise invalid_request(
            f"Checksum Type mismatch occurred, expected checksum Type: {upload.checksum_algorithm.lower()},"
            f" actual checksum Type: {promise.algorithm.lower()}"
        )


def _copied_span(info: ObjectInfo, params: Mapping[str, Any]) -> Span:
    text = params.get("CopySourceRange", "")
    return copy_range(text, info.size) if text else Span(0, info.size, False)


def _etag(parts: Sequence[PartInfo]) -> str:
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _completed(info: ObjectInfo) -> dict[str, Any]:
    checksum = checksum_members(info.checksum, with_type=True) if info.checksum else {}
    return {
        "Location": f"/{info.bucket}/{info.key}",
        "Bucket": info.bucket,
        "Key": info.key,
        "ETag": quoted(info.etag),
        **checksum,
        **encryption(info.attributes),
    }


def _checksum_kind(upload: UploadInfo) -> dict[str, str]:
    if not upload.checksum_asked:
        return {}
    return {"ChecksumAlgorithm": upload.checksum_algorithm, "ChecksumType": upload.checksum_type}


def _part(upload: UploadInfo, part: PartInfo) -> dict[str, Any]:
    checksum: Checksum | None = part.checksum if upload.checksum_asked else None
    return {
        "PartNumber": part.number,
        "LastModified": part.modified_at,
        "ETag": quoted(part.etag),
        "Size": part.size,
        **(checksum_members(checksum, with_type=False) if checksum else {}),
    }
