"""CopyObject, and what a copy's source is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from clary.blobs.base import Attributes, Location, ObjectInfo, OpenObject
from clary.services.s3.attributes import attributes_of, encryption, quoted
from clary.services.s3.base import S3Resource, check_key, s3_operation
from clary.services.s3.bodies import transfer
from clary.services.s3.checksums import BodyDigests, Promise, check_algorithm, checksum_members
from clary.services.s3.conditions import Span, WriteCondition, check_copy_source, write_condition
from clary.services.s3.errors import invalid_argument, invalid_request, not_implemented
from clary.services.s3.tags import tags_in_header
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes


class Copies(S3Resource):
    @s3_operation("CopyObject")
    def copy_object(self, call: Call, params: shapes.CopyObjectRequest) -> Mapping[str, Any]:
        bucket, key = params["Bucket"], params["Key"]
        source = copy_source(params["CopySource"])
        replaces = _replaces(params)
        if source == (bucket, key) and not replaces:
            raise invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing the"
                " object's metadata, storage class, website redirect location or encryption attributes."
            )
        condition = write_condition(params)
        with self._blobs.open(source.bucket, source.key) as opened:
            check_copy_source(opened.info, params)
            attributes = attributes_of(params) if replaces else opened.info.attributes
            attributes = replace(attributes, tags=_tags(opened.info, params))
            algorithm = params.get("ChecksumAlgorithm", "")
            info = self._copy(opened, Location(bucket, key), attributes, algorithm, condition)
        return {"CopyObjectResult": _result(info), **encryption(attributes)}

    def _copy(
        self,
        source: OpenObject,
        target: Location,
        attributes: Attributes,
        algorithm: str,
        condition: WriteCondition,
    ) -> ObjectInfo:
        if not _needs_hashing(source.info, algorithm):
            return self._blobs.copy(source, *target, attributes=attributes, **condition._asdict())
        kept = algorithm or (source.info.checksum.algorithm if source.info.checksum else "")
        digests = BodyDigests(Promise(), check_algorithm(kept) if kept else "")
        with self._blobs.stage() as staged:
            transfer(source, Span(0, source.info.size, False), staged, digests)
            return self._blobs.put(
                *target,
                staged,
                etag=digests.etag,
                attributes=attributes,
                checksum=digests.checksum,
                **condition._asdict(),
            )


def copy_source(text: str) -> Location:
    """`BUCKET/KEY`, percent-encoded, perhaps with a leading slash and a version."""
    path, _, version = text.partition("?")
    if version not in ("", "versionId=null"):
        raise not_implemented("versionId of a copy source")
    bucket, _, key = unquote(path, errors="surrogateescape").removeprefix("/").partition("/")
    if bucket.startswith("arn:"):
        raise not_implemented("an access point as copy source")
    if not bucket or not key:
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            "x-amz-copy-source",
            text,
        )
    check_key(key)
    return Location(bucket, key)


def _replaces(params: Mapping[str, Any]) -> bool:
    directive = params.get("MetadataDirective", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise invalid_argument("Unknown metadata directive.", "x-amz-metadata-directive", directive)
    return bool(directive == "REPLACE")


def _tags(source: ObjectInfo, params: Mapping[str, Any]) -> Mapping[str, str]:
    directive = params.get("TaggingDirective", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise invalid_argument("Unknown tagging directive.", "x-amz-tagging-directive", directive)
    if directive == "REPLACE":
        return tags_in_header(params.get("Tagging", ""))
    if params.get("Tagging"):
        raise invalid_request("x-amz-tagging needs the x-amz-tagging-directive REPLACE.")
    return source.attributes.tags


def _needs_hashing(info: ObjectInfo, algorithm: str) -> bool:
    """A copy is one piece: it has the etag of its bytes and a checksum of all of them."""
    if info.parts or info.checksum is None or info.checksum.type != "FULL_OBJECT":
        return True
    return bool(algorithm) and algorithm != info.checksum.algorithm


def _result(info: ObjectInfo) -> dict[str, Any]:
    checksum = checksum_members(info.checksum, with_type=True) if info.checksum else {}
    return {"ETag": quoted(info.etag), "LastModified": info.modified_at, **checksum}
