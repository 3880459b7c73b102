"""An object's headers and metadata: from the members of a request, and back into those of an answer. Pure."""

from collections.abc import Mapping
from typing import Any

from clary.blobs.base import Attributes, ObjectInfo
from clary.domain.faults import Fault
from clary.services.s3.checksums import checksum_members
from clary.services.s3.tags import tags_in_header

_HEADERS = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "Expires": "expires",
    "ServerSideEncryption": "x-amz-server-side-encryption",
}
_DEFAULT_TYPE = "binary/octet-stream"
_MOST_METADATA = 2048


def attributes_of(params: Mapping[str, Any]) -> Attributes:
    """What a request says about the object it makes."""
    headers = {header: str(params[member]) for member, header in _HEADERS.items() if params.get(member)}
    headers.setdefault("content-type", _DEFAULT_TYPE)
    encoding = _without_chunking(headers.pop("content-encoding", ""))
    if encoding:
        headers["content-encoding"] = encoding
    metadata = {name.lower(): value for name, value in (params.get("Metadata") or {}).items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > _MOST_METADATA:
        raise Fault(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            members={"Size": str(size), "MaxSizeAllowed": str(_MOST_METADATA)},
        )
    return Attributes(headers, metadata, tags_in_header(params.get("Tagging", "")))


def describe(info: ObjectInfo, *, with_checksum: bool) -> dict[str, Any]:
    """The members that GetObject and HeadObject have in common."""
    headers = info.attributes.headers
    members: dict[str, Any] = {
        member: headers[header] for member, header in _HEADERS.items() if header in headers
    }
    members |= {
        "AcceptRanges": "bytes",
        "ETag": quoted(info.etag),
        "LastModified": info.modified_at,
        "Metadata": dict(info.attributes.metadata),
    }
    if info.attributes.tags:
        members["TagCount"] = len(info.attributes.tags)
    if with_checksum and info.checksum is not None:
        members |= checksum_members(info.checksum, with_type=True)
    return members


def encryption(attributes: Attributes) -> dict[str, str]:
    """Told again with every answer about an object, when it was asked for."""
    value = attributes.headers.get("x-amz-server-side-encryption")
    return {"ServerSideEncryption": value} if value else {}


def quoted(etag: str) -> str:
    return f'"{etag}"'


def _without_chunking(encoding: str) -> str:
    """`aws-chunked` says how the body travelled, not what the object is."""
    parts = (part.strip() for part in encoding.split(","))
    return ",".join(part for part in parts if part and part.lower() != "aws-chunked")
