"""Objects one by one: put, get, head, delete."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clary.blobs.base import ObjectInfo, PreconditionFailed
from clary.domain.faults import Fault
from clary.services.s3.attributes import attributes_of, describe, encryption, quoted
from clary.services.s3.base import S3Resource, check_key, s3_operation
from clary.services.s3.bodies import check_size, receive
from clary.services.s3.checksums import BodyDigests, check_whole_body, promise_of
from clary.services.s3.conditions import Span, bare_etag, check_read, http_date, select, write_condition
from clary.services.s3.errors import malformed_xml, not_implemented, translated
from clary.wire.operations import Answer, Call, FileBody
from clary.wire.shapes import s3 as shapes

_MOST_DELETED = 1000
_OVERRIDES = {
    "ResponseCacheControl": "CacheControl",
    "ResponseContentDisposition": "ContentDisposition",
    "ResponseContentEncoding": "ContentEncoding",
    "ResponseContentLanguage": "ContentLanguage",
    "ResponseContentType": "ContentType",
}


class Objects(S3Resource):
    @s3_operation("PutObject")
    def put_object(self, call: Call, params: shapes.PutObjectRequest) -> Mapping[str, Any]:
        bucket, limit = params["Bucket"], self._holdings.max_object_bytes
        self._blobs.bucket(bucket)
        check_size(params.get("ContentLength"), call.headers, limit)
        condition = write_condition(params)
        attributes = attributes_of(params)
        digests = BodyDigests(promise_of(params, call.headers))
        with self._blobs.stage() as staged:
            receive(params.get("Body", b""), staged, digests, limit)
            info = self._blobs.put(
                bucket,
                params["Key"],
                staged,
                etag=digests.etag,
                attributes=attributes,
                checksum=digests.checksum,
                if_absent=condition.if_absent,
                if_match=condition.if_match,
            )
        told = digests.told() | {"ChecksumType": "FULL_OBJECT"}
        return {"ETag": quoted(info.etag), **told, **encryption(attributes)}

    @s3_operation("GetObject")
    def get_object(self, call: Call, params: shapes.GetObjectRequest) -> Answer:
        source = self._blobs.open(params["Bucket"], params["Key"])
        check_read(source.info, params)
        span = select(source.info, params)
        members = _describe(source.info, span, params)
        members["Body"] = FileBody(source.path, span.offset, span.length, keep=source)
        return Answer(members, status=206 if span.is_partial else 200)

    @s3_operation("HeadObject")
    def head_object(self, call: Call, params: shapes.HeadObjectRequest) -> Answer:
        info = self._blobs.head(params["Bucket"], params["Key"])
        check_read(info, params)
        span = select(info, params)
        return Answer(_describe(info, span, params), status=206 if span.is_partial else 200)

    @s3_operation("DeleteObject")
    def delete_object(self, call: Call, params: shapes.DeleteObjectRequest) -> Mapping[str, Any]:
        self._delete(params["Bucket"], params["Key"], params.get("IfMatch"))
        return {}

    @s3_operation("DeleteObjects")
    def delete_objects(self, call: Call, params: shapes.DeleteObjectsRequest) -> Mapping[str, Any]:
        # A list damaged on its way would delete other things.
        check_whole_body(call, required=True)
        bucket = params["Bucket"]
        objects = params["Delete"]["Objects"]
        if not 1 <= len(objects) <= _MOST_DELETED:
            raise malformed_xml()
        errors = {index: fault for index, entry in enumerate(objects) if (fault := _refusal(entry))}
        plain = [
            entry["Key"] for index, entry in enumerate(objects) if index not in errors and "ETag" not in entry
        ]
        self._blobs.delete_many(bucket, plain)
        for index, entry in enumerate(objects):
            if index not in errors and "ETag" in entry and (fault := self._refused_delete(bucket, entry)):
                errors[index] = fault
        keys = [entry["Key"] for index, entry in enumerate(objects) if index not in errors]
        quiet = params["Delete"].get("Quiet", False)
        return {
            "Deleted": [] if quiet else [{"Key": key} for key in keys],
            "Errors": [_error(objects[index]["Key"], fault) for index, fault in sorted(errors.items())],
        }

    def _refused_delete(self, bucket: str, entry: shapes.ObjectIdentifier) -> Fault | None:
        try:
            with translated():
                self._delete(bucket, entry["Key"], entry["ETag"])
        except Fault as fault:
            return fault
        return None

    def _delete(self, bucket: str, key: str, condition: str | None) -> None:
        """A condition `*` asks only that there is an object: one that is replaced meanwhile is one, too."""
        expected = None if condition is None else bare_etag(condition)
        if expected != "*":
            self._blobs.delete(bucket, key, if_match=expected)
            return
        while True:
            with suppress(PreconditionFailed):
                self._blobs.delete(bucket, key, if_match=self._blobs.head(bucket, key).etag)
                return


def _describe(info: ObjectInfo, span: Span, params: Mapping[str, Any]) -> dict[str, Any]:
    # The checksum is that of the whole: told with a piece, the client would hold the piece against it.
    with_checksum = params.get("ChecksumMode") == "ENABLED" and span.length == info.size
    members = describe(info, with_checksum=with_checksum)
    members["ContentLength"] = span.length
    if span.is_partial:
        members["ContentRange"] = span.content_range(info.size)
    if params.get("PartNumber") is not None and info.parts:
        members["PartsCount"] = len(info.parts)
    for asked, member in _OVERRIDES.items():
        if params.get(asked):
            members[member] = params[asked]
    if params.get("ResponseExpires"):
        members["Expires"] = http_date(params["ResponseExpires"])
    return members


def _refusal(entry: shapes.ObjectIdentifier) -> Fault | None:
    if entry.get("VersionId", "null") != "null":
        return not_implemented("VersionId")
    for condition in ("LastModifiedTime", "Size"):
        if condition in entry:
            return not_implemented(f"{condition} of an object to delete")
    try:
        check_key(entry["Key"])
    except Fault as fault:
        return fault
    return None


def _error(key: str, fault: Fault) -> dict[str, str]:
    return {"Key": key, "Code": fault.code, "Message": fault.message}
