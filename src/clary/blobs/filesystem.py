"""Objects in a local directory: payload files under random ids, and an index that is committed last.

    <root>/data/aa/<id>   payloads            <root>/tmp/   payloads under way
    <root>/index.db       what names them     <root>/lock   held by the one process that writes
    <root>/reserve        space kept back

The order keeps every promise. A payload is durable before the row that names it is; a payload is removed only
after the row that named it is gone. So a kill at any instruction leaves at most a file that no row names, and
the next start removes it. Readers, also in other processes, need no lock: a payload that vanished between the
index and the file was replaced, and is looked up again.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from sqlite3 import Connection

from clary.blobs import records
from clary.blobs.base import (
    Attributes,
    BucketExists,
    BucketInfo,
    BucketNotEmpty,
    Checksum,
    ChecksumType,
    NoSuchKey,
    NoSuchPart,
    ObjectInfo,
    OpenObject,
    OutOfSpace,
    PartInfo,
    PreconditionFailed,
    Staged,
    StorageFailed,
    UploadInfo,
    UploadPage,
)
from clary.blobs.failures import translated
from clary.blobs.index import Index
from clary.blobs.paging import Rolled, roll_up
from clary.blobs.payloads import OpenPayload, Payloads, StagedFile
from clary.blobs.reading import ReadingHalf, names
from clary.blobs.reserve import Reserve, path_below
from clary.domain.clock import Clock


class FilesystemBlobs(ReadingHalf):
    """See `blobs.base.BlobStore`. Opened for reading only it needs no clock, writes nothing, and may be opened
    before, beside and after the writer. `sync=False` gives up outliving a loss of power: for tests.
    """

    def __init__(
        self, root: Path, clock: Clock | None = None, *, read_only: bool = False, sync: bool = True
    ) -> None:
        super().__init__(Payloads(root, sync=sync), Index(root / "index.db", read_only=read_only, sync=sync))
        self._lock = -1
        self._reserve = Reserve(path_below(root), root / "index.db-wal")
        if not read_only:
            if clock is None:
                raise TypeError("a store that is written to needs a clock")
            self._clock = clock
            self._lock = _lock(root)
            try:
                self._payloads.prepare()
                self._index.prepare()
                self.sweep()
                self._reserve.hold()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        super().close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # Buckets

    def create_bucket(self, name: str, region: str) -> None:
        with self._index.write() as db:
            if records.find_bucket(db, name) is not None:
                raise BucketExists(name)
            records.insert_bucket(db, BucketInfo(name, region, self._clock.now()))

    def delete_bucket(self, name: str) -> None:
        def change(db: Connection) -> list[str]:
            records.require_bucket(db, name)
            if records.has_objects(db, name):
                raise BucketNotEmpty(name)
            records.delete_bucket(db, name)
            return _end_uploads(db, records.uploads_of(db, name))

        self._free(change)

    def bucket_tags(self, name: str) -> Mapping[str, str]:
        with self._read(name) as db:
            records.require_bucket(db, name)
            return records.bucket_tags(db, name)

    def set_bucket_tags(self, name: str, tags: Mapping[str, str]) -> None:
        def change(db: Connection) -> list[str]:
            records.require_bucket(db, name)
            records.put_bucket_tags(db, name, tags)
            return []

        self._retag(change, tags)

    # Objects

    def stage(self) -> Staged:
        return self._payloads.stage()

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
        info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=staged.size,
            etag=etag,
            modified_at=self._clock.now(),
            checksum=checksum,
            attributes=attributes,
        )
        return self._put(info, staged, if_absent=if_absent, if_match=if_match)

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
        assert isinstance(source, OpenPayload), "a copy is made from an object of the same store"
        info = replace(
            source.info,
            bucket=bucket,
            key=key,
            modified_at=self._clock.now(),
            attributes=attributes,
            upload_id="",
        )
        with self._payloads.share(source) as staged:
            return self._put(info, staged, if_absent=if_absent, if_match=if_match)

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        def change(db: Connection) -> list[str]:
            records.require_bucket(db, bucket)
            found = records.find_object(db, bucket, key)
            if found is None:
                raise NoSuchKey(key)
            attributes = replace(found.info.attributes, tags=tags)
            records.put_object(db, replace(found.info, attributes=attributes), found.payload)
            return []

        self._retag(change, tags)

    def delete(self, bucket: str, key: str, *, if_match: str | None = None) -> bool:
        return self._delete(bucket, [key], if_match) > 0

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        self._delete(bucket, list(keys))

    # Uploads in parts

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
        now = self._clock.now()
        upload = UploadInfo(
            # Of one key the older upload is listed first, so the id begins with the time.
            upload_id=f"{int(now.timestamp() * 1_000_000):014x}{secrets.token_hex(16)}",
            bucket=bucket,
            key=key,
            started_at=now,
            attributes=attributes,
            checksum_algorithm=checksum_algorithm,
            checksum_type=checksum_type,
            checksum_asked=checksum_asked,
        )
        with self._index.write() as db:
            records.require_bucket(db, bucket)
            records.insert_upload(db, upload)
        return upload

    def upload(self, bucket: str, key: str, upload_id: str) -> UploadInfo:
        with self._read(bucket) as db:
            return records.require_upload(db, bucket, key, upload_id)

    def put_part(
        self,
        upload: UploadInfo,
        number: int,
        staged: Staged,
        *,
        etag: str,
        checksum: Checksum | None = None,
    ) -> PartInfo:
        part = PartInfo(
            number=number, size=staged.size, etag=etag, modified_at=self._clock.now(), checksum=checksum
        )
        with self._payloads.placed(_own(staged)) as payload, self._index.write() as db:
            records.require_upload(db, upload.bucket, upload.key, upload.upload_id)
            old = records.put_part(db, upload.upload_id, part, payload)
        self._payloads.remove([old] if old else [])
        return part

    def parts(self, upload: UploadInfo, *, after: int = 0, limit: int = 10_000) -> Sequence[PartInfo]:
        with self._read(upload.bucket) as db:
            records.require_upload(db, upload.bucket, upload.key, upload.upload_id)
            return [part.info for part in records.parts_of(db, upload.upload_id, after, limit)]

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
        with self._read(upload.bucket) as db:
            records.require_upload(db, upload.bucket, upload.key, upload.upload_id)
            payloads = _payloads_of(db, upload, parts)
        with self._payloads.stage() as staged:
            for part, payload in zip(parts, payloads, strict=True):
                self._append(staged, part, payload)
            info = ObjectInfo(
                bucket=upload.bucket,
                key=upload.key,
                size=staged.size,
                etag=etag,
                modified_at=self._clock.now(),
                checksum=checksum,
                attributes=upload.attributes,
                parts=tuple(part.size for part in parts),
                upload_id=upload.upload_id,
            )
            return self._put(info, staged, if_absent=if_absent, if_match=if_match, joined=(upload, payloads))

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        def change(db: Connection) -> list[str]:
            records.require_upload(db, bucket, key, upload_id)
            return records.delete_upload(db, upload_id)

        self._free(change)

    def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadPage:
        after, below = records.encode_key(start_after[0]), records.encode_key(prefix)
        with self._read(bucket) as db:
            records.require_bucket(db, bucket)
            rolled = roll_up(
                records.scan_uploads(db, bucket, below, inclusive=True)
                if below > after
                else records.scan_uploads(db, bucket, after, after_id=start_after[1]),
                lambda start: records.scan_uploads(db, bucket, start, inclusive=True),
                prefix=below,
                delimiter=records.encode_key(delimiter),
                skip=after,
                limit=limit,
            )
        return UploadPage(tuple(rolled.items), names(rolled.prefixes), _next_upload(rolled))

    # Cleaning

    def abort_older(self, age: timedelta) -> int:
        before = self._clock.now() - age
        ended: list[str] = []

        def change(db: Connection) -> list[str]:
            ended[:] = records.uploads_before(db, before)
            return _end_uploads(db, ended)

        self._free(change)
        return len(ended)

    def sweep(self) -> None:
        """Removes payloads that no row names. Only while nothing else writes."""
        with self._index.read() as db:
            self._payloads.sweep(lambda shard: records.payloads_in(db, shard))

    def clear(self) -> None:
        self._free(records.delete_everything)

    # Steps

    def _delete(self, bucket: str, keys: Sequence[str], if_match: str | None = None) -> int:
        def change(db: Connection) -> list[str]:
            records.require_bucket(db, bucket)
            if if_match is not None:
                old = records.find_object(db, bucket, keys[0])
                _check(old.info if old else None, keys[0], if_absent=False, if_match=if_match)
            payloads = (records.delete_object(db, bucket, key) for key in keys)
            return [payload for payload in payloads if payload]

        return self._free(change)

    def _retag(self, change: Callable[[Connection], list[str]], tags: Mapping[str, str]) -> None:
        """To take all tags away is a deletion, which a full disk does not refuse."""
        if not tags:
            self._free(change)
            return
        with self._index.write() as db:
            change(db)

    def _free(self, change: Callable[[Connection], list[str]]) -> int:
        """Makes a change that frees the payloads it returns, if need be in the space kept back; how many."""
        try:
            with self._index.write() as db:
                unnamed = change(db)
        except OutOfSpace:
            # Whoever comes second finds the space given back already, and may need none of it.
            with self._reserve.given_back(), self._index.write() as db:
                unnamed = change(db)
        self._payloads.remove(unnamed)
        self._reserve.hold()
        return len(unnamed)

    def _put(
        self,
        info: ObjectInfo,
        staged: Staged,
        *,
        if_absent: bool,
        if_match: str | None,
        joined: tuple[UploadInfo, Sequence[str]] | None = None,
    ) -> ObjectInfo:
        """The one way to a new object. `joined`: the upload that ends with it, and its payloads as they were."""
        with self._payloads.placed(_own(staged)) as payload, self._index.write() as db:
            records.require_bucket(db, info.bucket)
            unnamed: list[str] = []
            if joined is not None:
                unnamed += _end_upload(db, *joined)
            old = records.find_object(db, info.bucket, info.key)
            _check(old.info if old else None, info.key, if_absent=if_absent, if_match=if_match)
            records.put_object(db, info, payload)
            unnamed += [old.payload] if old else []
        self._payloads.remove(unnamed)
        return info

    def _append(self, staged: StagedFile, part: PartInfo, payload: str) -> None:
        with translated("joining the parts of an object"):
            try:
                source = self._payloads.open(payload)
            except FileNotFoundError:
                raise NoSuchPart(str(part.number)) from None  # uploaded anew, or the upload has ended
        try:
            staged.append(source, part.size)
            # Never read again: in the page cache it would only be in the way, above all of its own copy.
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(source)


def _own(staged: Staged) -> StagedFile:
    assert isinstance(staged, StagedFile), "a payload is put where it was staged"
    return staged


def _check(old: ObjectInfo | None, key: str, *, if_absent: bool, if_match: str | None) -> None:
    if if_absent and old is not None:
        raise PreconditionFailed(key)
    if if_match is not None:
        if old is None:
            raise NoSuchKey(key)
        if old.etag != if_match:
            raise PreconditionFailed(key)


def _payloads_of(db: Connection, upload: UploadInfo, parts: Sequence[PartInfo]) -> list[str]:
    stored = {part.info.number: part for part in records.parts_of(db, upload.upload_id, 0, 10_000)}
    for part in parts:
        if part.number not in stored or stored[part.number].info != part:
            raise NoSuchPart(str(part.number))
    return [stored[part.number].payload for part in parts]


def _end_uploads(db: Connection, upload_ids: Iterable[str]) -> list[str]:
    return [payload for upload_id in upload_ids for payload in records.delete_upload(db, upload_id)]


def _end_upload(db: Connection, upload: UploadInfo, payloads: Sequence[str]) -> list[str]:
    records.require_upload(db, upload.bucket, upload.key, upload.upload_id)
    unnamed = records.delete_upload(db, upload.upload_id)
    changed = set(payloads) - set(unnamed)
    if changed:
        raise NoSuchPart("a part was uploaded anew while the upload was completed")
    return unnamed


def _next_upload(rolled: Rolled[UploadInfo]) -> tuple[str, str] | None:
    if rolled.last is None:
        return None
    last = records.decode_key(rolled.last)
    ends_with_upload = bool(rolled.items) and rolled.items[-1].key == last
    return last, rolled.items[-1].upload_id if ends_with_upload else ""


def _lock(root: Path) -> int:
    """Held until the process ends, however it ends."""
    with translated("locking the directory of the objects"):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise StorageFailed(f"another process already writes to {root}") from None
            raise
    return fd
