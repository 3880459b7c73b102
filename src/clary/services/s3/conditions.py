"""Conditional requests and ranges, as RFC 9110 and S3 have them. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any, NamedTuple

from clary.blobs.base import ObjectInfo
from clary.domain.faults import Fault
from clary.services.s3.errors import invalid_request, not_implemented, precondition_failed

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Span(NamedTuple):
    """A piece of an object, and whether it was asked for as a piece."""

    offset: int
    length: int
    is_partial: bool

    def content_range(self, size: int) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"


def check_read(info: ObjectInfo, params: Mapping[str, Any]) -> None:
    """For GetObject and HeadObject: 412 or 304."""
    if "IfMatch" in params:
        if not _matches(params["IfMatch"], info.etag):
            raise precondition_failed("If-Match")
    elif "IfUnmodifiedSince" in params and _second(info.modified_at) > params["IfUnmodifiedSince"]:
        raise precondition_failed("If-Unmodified-Since")
    if "IfNoneMatch" in params:
        if _matches(params["IfNoneMatch"], info.etag):
            raise _not_modified(info)
    elif "IfModifiedSince" in params and _second(info.modified_at) <= params["IfModifiedSince"]:
        raise _not_modified(info)


def check_copy_source(info: ObjectInfo, params: Mapping[str, Any]) -> None:
    """For CopyObject and UploadPartCopy: always 412."""
    if "CopySourceIfMatch" in params:
        if not _matches(params["CopySourceIfMatch"], info.etag):
            raise precondition_failed("x-amz-copy-source-If-Match")
    elif "CopySourceIfUnmodifiedSince" in params and (
        _second(info.modified_at) > params["CopySourceIfUnmodifiedSince"]
    ):
        raise precondition_failed("x-amz-copy-source-If-Unmodified-Since")
    if "CopySourceIfNoneMatch" in params:
        if _matches(params["CopySourceIfNoneMatch"], info.etag):
            raise precondition_failed("x-amz-copy-source-If-None-Match")
    elif "CopySourceIfModifiedSince" in params and (
        _second(info.modified_at) <= params["CopySourceIfModifiedSince"]
    ):
        raise precondition_failed("x-amz-copy-source-If-Modified-Since")


class WriteCondition(NamedTuple):
    """What must hold of the object in place, for the store to check in the step that replaces it."""

    if_absent: bool
    if_match: str | None


def write_condition(params: Mapping[str, Any]) -> WriteCondition:
    absent, match = params.get("IfNoneMatch"), params.get("IfMatch")
    if absent is not None and match is not None:
        raise invalid_request("If-Match and If-None-Match cannot both be set")
    if absent not in (None, "*"):
        raise not_implemented("If-None-Match with anything but * on a write")
    return WriteCondition(absent == "*", None if match is None else bare_etag(match))


def select(info: ObjectInfo, params: Mapping[str, Any]) -> Span:
    """The piece that `Range` or `PartNumber` asks for, or everything."""
    wanted, part = params.get("Range"), params.get("PartNumber")
    if part is not None:
        if wanted is not None:
            raise invalid_request("Cannot specify both Range header and partNumber query parameter")
        return _part(info, part)
    return _range(wanted, info.size) if wanted else Span(0, info.size, False)


def copy_range(text: str, size: int) -> Span:
    """UploadPartCopy's range: both ends, and both inside the source."""
    match = _RANGE.fullmatch(text)
    if match is None or not match[1] or not match[2] or int(match[1]) > int(match[2]):
        raise Fault(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the"
            " zero-based offsets of the first and last bytes to copy",
        )
    first, last = int(match[1]), int(match[2])
    if last >= size:
        raise Fault("InvalidArgument", f"Range specified is not valid for source object of size: {size}")
    return Span(first, last - first + 1, True)


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


def _range(text: str, size: int) -> Span:
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return Span(0, size, False)  # not one range of bytes: as if it were not there
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return Span(0, size, False)
    else:
        first, last = max(size - int(match[2]), 0), size - 1
        if int(match[2]) == 0:
            first = size
    if first >= size:
        raise _not_satisfiable(text, size)
    return Span(first, last - first + 1, True)


def _part(info: ObjectInfo, number: int) -> Span:
    sizes = info.parts or (info.size,)
    if not 1 <= number <= len(sizes):
        raise Fault(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            416,
            members={"PartNumberRequested": str(number), "ActualPartCount": str(len(sizes))},
        )
    # An empty object has no range that could be named.
    return Span(sum(sizes[: number - 1]), sizes[number - 1], is_partial=info.size > 0)


def _not_satisfiable(text: str, size: int) -> Fault:
    return Fault(
        "InvalidRange",
        "The requested range is not satisfiable",
        416,
        members={"RangeRequested": text, "ActualObjectSize": str(size)},
        headers={"Content-Range": f"bytes */{size}"},
    )


def _not_modified(info: ObjectInfo) -> Fault:
    headers = {"ETag": f'"{info.etag}"', "Last-Modified": http_date(info.modified_at)}
    return Fault("NotModified", "Not Modified", 304, headers=headers)


def _matches(condition: str, etag: str) -> bool:
    return any(candidate in ("*", etag) for candidate in map(bare_etag, condition.split(",")))


def bare_etag(etag: str) -> str:
    """As the store keeps it: without quotes."""
    return etag.strip().removeprefix("W/").strip('"')


def _second(moment: datetime) -> datetime:
    # Dates in headers have whole seconds.
    return moment.replace(microsecond=0)
