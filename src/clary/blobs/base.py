"""What every blob store promises: buckets of objects, each a payload and what was said about it.

`tests/contract/blobs` holds each store to it. The service `s3` speaks AWS above it; the host reads
artefacts through it. A store knows nothing of requests, quotas or checksums' meaning: the etag and the checksum
are handed in with the payload and given back.

    BlobError
    ├── NoSuchBucket, NoSuchKey, NoSuchUpload, NoSuchPart     what was named does not exist
    ├── BucketExists, BucketNotEmpty
    ├── PreconditionFailed                                    the object is not the one the caller expected
    └── StorageFailed                                         the disk failed; nothing is known to have changed
        └── OutOfSpace                                        it is full: free some space, then try again

A key is text whose UTF-8 form is what is stored and sorted; bytes that are no UTF-8 are kept as Python's
surrogate escapes. Keys are never paths, so nothing in them is special.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

ChecksumType = Literal["COMPOSITE", "FULL_OBJECT"]


class BlobError(Exception):
    """The store could not do it."""


class NoSuchBucket(BlobError):
    pass


class NoSuchKey(BlobError):
    pass


class NoSuchUpload(BlobError):
    """Never begun, completed or aborted."""


class NoSuchPart(BlobError):
    """A part that is completed was never uploaded, or was uploaded anew meanwhile."""


class BucketExists(BlobError):
    pass


class BucketNotEmpty(BlobError):
    pass


class PreconditionFailed(BlobError):
    pass


class StorageFailed(BlobError):
    """The storage below failed (EIO …)."""


class OutOfSpace(StorageFailed):
    """ENOSPC, EDQUOT or a file size limit."""


class Location(NamedTuple):
    bucket: str
    key: str


def parse_uri(uri: str) -> Location | None:
    """`s3://BUCKET/KEY` (or `s3://BUCKET`) in its parts; None when it is no such URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return Location(bucket, key) if scheme == "s3" and bucket else None


@dataclass(frozen=True, slots=True)
class BucketInfo:
    name: str
    region: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Checksum:
    """`value` in base64 (`…-N` when composite), `algorithm` in S3's capitals: CRC32, SHA256 …"""

    algorithm: str
    value: str
    type: ChecksumType = "FULL_OBJECT"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the client says about an object. Header and metadata names are lower case."""

    headers: Mapping[str, str] = field(default_factory=dict)  # content-type, cache-control …
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object. `etag` without quotes. What a listing gives has empty attributes and no `parts`."""

    bucket: str
    key: str
    size: int
    etag: str
    modified_at: datetime
    checksum: Checksum | None = None
    attributes: Attributes = field(default_factory=Attributes)
    parts: tuple[int, ...] = ()  # sizes, when it was uploaded in parts
    upload_id: str = ""


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """`next` is the `start_after` of the following page; None on the last one."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadInfo:
    """An upload in parts that is under way. `checksum_algorithm` and `type` are those of the object to come."""

    upload_id: str
    bucket: str
    key: str
    started_at: datetime
    attributes: Attributes = field(default_factory=Attributes)
    checksum_algorithm: str = ""
    checksum_type: ChecksumType = "FULL_OBJECT"
    checksum_asked: bool = True  # False: the store's own default, which the client never named


@dataclass(frozen=True, slots=True)
class UploadPage:
    uploads: tuple[UploadInfo, ...]
    prefixes: tuple[str, ...]
    next: tuple[str, str] | None  # (key, upload id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    number: int
    size: int
    etag: str
    modified_at: datetime
    checksum: Checksum | None = None


class Staged(AbstractContextManager["Staged"], Protocol):
    """A payload on its way in. Leaving the context discards it, unless `put` or `put_part` took it over."""

    size: int

    def write(self, data: bytes | memoryview) -> None:
        """Appends. Raises `OutOfSpace`, `StorageFailed`."""


class OpenObject(Protocol):
    """An object's payload, which stays whole while it is open whatever happens to the object meanwhile."""

    info: ObjectInfo

    @property
    def path(self) -> str:
        """A local file holding exactly the payload, readable for as long as this object lives and is open."""

    def read(self, size: int) -> bytes:
        """The next at most `size` bytes; b"" at the end."""

    def seek(self, offset: int) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> "OpenObject": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BlobReader(Protocol):
    """The reading half, which needs no other process. Safe for use by several threads."""

    def buckets(self) -> list[BucketInfo]:
        """All of them, by name."""

    def bucket(self, name: str) -> BucketInfo:
        """Raises `NoSuchBucket`."""

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises `NoSuchBucket`, `NoSuchKey`."""

    def open(self, bucket: str, key: str) -> OpenObject:
        """The object with its payload. Raises as `head` does."""

    def objects(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: str = "",
        limit: int = 1000,
    ) -> ObjectPage:
        """At most `limit` objects and common prefixes together, in the order of their UTF-8 bytes.

        What lies below a common prefix is skipped, not scanned, so a page costs the same anywhere. A common
        prefix equal to `start_after` was on the page before and is not given again. Raises `NoSuchBucket`.
        """


class BlobStore(BlobReader, Protocol):
    """All of it. What has returned is durable: it outlives a kill and a loss of power."""

    def create_bucket(self, name: str, region: str) -> None:
        """Raises `BucketExists`."""

    def delete_bucket(self, name: str) -> None:
        """Ends its uploads too. Raises `NoSuchBucket`, `BucketNotEmpty`."""

    def bucket_tags(self, name: str) -> Mapping[str, str]:
        """Raises `NoSuchBucket`."""

    def set_bucket_tags(self, name: str, tags: Mapping[str, str]) -> None:
        """In place of all it had. Raises `NoSuchBucket`."""

    def stage(self) -> Staged:
        """Begins a payload. Nothing of it can be seen until it is put."""

    def put(
        self,
        bucket: str,
        key: str,
        staged: Staged,
        *,
        etag: str,
        attributes: Attributes,
        checksum: Checksum | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Makes the payload the object, at once and wholly, in place of an older one.

        Raises `NoSuchBucket`, `PreconditionFailed` (it exists and `if_absent`, or its etag is not `if_match`),
        `NoSuchKey` (`if_match` of nothing), `StorageFailed`.
        """

    def copy(
        self,
        source: OpenObject,
        bucket: str,
        key: str,
        *,
        attributes: Attributes,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """The same payload, etag and checksum under another name, or under the same one with other attributes.

        Costs the same for any size where the store can share a payload. Raises as `put` does.
        """

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """In place of all it had; the object stays as old as it was. Raises as `head` does."""

    def delete(self, bucket: str, key: str, *, if_match: str | None = None) -> bool:
        """Whether there was one. May be repeated. Raises `NoSuchBucket`.

        With `if_match` raises `NoSuchKey`, and `PreconditionFailed` when its etag is another.
        """

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        """All in one step. Raises `NoSuchBucket`."""

    def create_upload(
        self,
        bucket: str,
        key: str,
        attributes: Attributes,
        *,
        checksum_algorithm: str,
        checksum_type: ChecksumType,
        checksum_asked: bool,
    ) -> UploadInfo:
        """Raises `NoSuchBucket`."""

    def upload(self, bucket: str, key: str, upload_id: str) -> UploadInfo:
        """Raises `NoSuchBucket`, `NoSuchUpload`."""

    def put_part(
        self,
        upload: UploadInfo,
        number: int,
        staged: Staged,
        *,
        etag: str,
        checksum: Checksum | None = None,
    ) -> PartInfo:
        """In place of an earlier part of that number. Raises `NoSuchUpload`, `StorageFailed`."""

    def parts(self, upload: UploadInfo, *, after: int = 0, limit: int = 10_000) -> Sequence[PartInfo]:
        """By number, from the one after `after`. Raises `NoSuchUpload`."""

    def complete(
        self,
        upload: UploadInfo,
        parts: Sequence[PartInfo],
        *,
        etag: str,
        checksum: Checksum | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Makes the parts, as they were listed, the object, and ends the upload. Raises as `put` does, and
        `NoSuchUpload`, `NoSuchPart`. Takes as long as copying the parts, unless the file system shares extents.
        """

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises `NoSuchBucket`, `NoSuchUpload`."""

    def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadPage:
        """By key, then by age, from behind `start_after`: (key, upload id), or (key, "") for all of that key.

        Raises `NoSuchBucket`.
        """

    def abort_older(self, age: timedelta) -> int:
        """Ends uploads begun longer ago than that; how many."""

    def clear(self) -> None:
        """Empties the store."""

    def close(self) -> None: ...
