"""The blob stores there are, and what tests do to each of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from clary.blobs.base import (
    Attributes,
    BlobReader,
    BlobStore,
    Checksum,
    ObjectInfo,
    PartInfo,
    UploadInfo,
)
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.clock import FakeClock

BUCKET = "bucket"
ATTRIBUTES = Attributes({"content-type": "text/csv"}, {"colour": "red", "größe": "10"})


class Place(NamedTuple):
    """A store and another one that only reads the same objects."""

    store: BlobStore
    reader: BlobReader
    clock: FakeClock


def _filesystem(root: Path) -> Place:
    clock = FakeClock()
    return Place(FilesystemBlobs(root, clock, sync=False), FilesystemBlobs(root, read_only=True), clock)


STORES: dict[str, Callable[[Path], Place]] = {"filesystem": _filesystem}


def put(
    store: BlobStore,
    key: str,
    content: bytes = b"",
    *,
    bucket: str = BUCKET,
    attributes: Attributes = ATTRIBUTES,
    checksum: Checksum | None = None,
    if_absent: bool = False,
    if_match: str | None = None,
) -> ObjectInfo:
    with store.stage() as staged:
        staged.write(content)
        return store.put(
            bucket,
            key,
            staged,
            etag=hashlib.md5(content).hexdigest(),
            attributes=attributes,
            checksum=checksum,
            if_absent=if_absent,
            if_match=if_match,
        )


def content_of(reader: BlobReader, key: str, bucket: str = BUCKET) -> bytes:
    with reader.open(bucket, key) as opened:
        return b"".join(iter(lambda: opened.read(7), b""))


def begin(store: BlobStore, key: str = "big", bucket: str = BUCKET) -> UploadInfo:
    return store.create_upload(
        bucket,
        key,
        ATTRIBUTES,
        checksum_algorithm="CRC32",
        checksum_type="COMPOSITE",
        checksum_asked=True,
    )


def put_part(store: BlobStore, upload: UploadInfo, number: int, content: bytes) -> PartInfo:
    with store.stage() as staged:
        staged.write(content)
        return store.put_part(upload, number, staged, etag=hashlib.md5(content).hexdigest())
