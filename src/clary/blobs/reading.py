"""The reading half of a file system's blob store: needs no lock and no other process.

The host reads artefacts through it while control writes, or is dead.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from sqlite3 import Connection

from clary.blobs import records
from clary.blobs.base import (
    BucketInfo,
    NoSuchBucket,
    NoSuchKey,
    ObjectInfo,
    ObjectPage,
    OpenObject,
    StorageFailed,
)
from clary.blobs.failures import translated
from clary.blobs.index import Index, NotMadeYet
from clary.blobs.paging import roll_up
from clary.blobs.payloads import OpenPayload, Payloads


class ReadingHalf:
    """See `blobs.base.BlobReader`."""

    def __init__(self, payloads: Payloads, index: Index) -> None:
        self._payloads = payloads
        self._index = index

    def close(self) -> None:
        self._index.close()

    def buckets(self) -> list[BucketInfo]:
        try:
            with self._index.read() as db:
                return records.all_buckets(db)
        except NotMadeYet:
            return []

    def bucket(self, name: str) -> BucketInfo:
        with self._read(name) as db:
            return records.require_bucket(db, name)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        return self._find(bucket, key).info

    def open(self, bucket: str, key: str) -> OpenObject:
        missing = ""
        while True:
            found = self._find(bucket, key)
            if found.payload == missing:
                raise StorageFailed(f"the payload of {key!r} in {bucket} is missing")
            with translated("opening an object"):
                try:
                    return OpenPayload(self._payloads.open(found.payload), found.payload, found.info)
                except FileNotFoundError:
                    missing = found.payload  # replaced since the index was read: look again

    def objects(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: str = "",
        limit: int = 1000,
    ) -> ObjectPage:
        after, below = records.encode_key(start_after), records.encode_key(prefix)
        with self._read(bucket) as db:
            records.require_bucket(db, bucket)
            rolled = roll_up(
                records.scan_objects(db, bucket, max(after, below), inclusive=below > after),
                lambda start: records.scan_objects(db, bucket, start, inclusive=True),
                prefix=below,
                delimiter=records.encode_key(delimiter),
                skip=after,
                limit=limit,
            )
        return ObjectPage(
            objects=tuple(found.info for found in rolled.items),
            prefixes=names(rolled.prefixes),
            next=None if rolled.last is None else records.decode_key(rolled.last),
        )

    @contextmanager
    def _read(self, bucket: str) -> Iterator[Connection]:
        try:
            with self._index.read() as db:
                yield db
        except NotMadeYet:
            raise NoSuchBucket(bucket) from None

    def _find(self, bucket: str, key: str) -> records.StoredObject:
        with self._read(bucket) as db:
            found = records.find_object(db, bucket, key)
            if found is None:
                records.require_bucket(db, bucket)
                raise NoSuchKey(key)
            return found


def names(keys: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(records.decode_key(key) for key in keys)
