"""The rows of a file system's blob store as records: every statement on the index stands here.

Each function takes a connection, in or outside a transaction. Keys are their UTF-8 bytes, so SQLite's order is
S3's. Times are whole microseconds since the epoch.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clary.blobs.base import (
    Attributes,
    BucketInfo,
    Checksum,
    NoSuchBucket,
    NoSuchUpload,
    ObjectInfo,
    PartInfo,
    UploadInfo,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OBJECT = "key, payload, size, etag, modified_us, algorithm, checksum, checksum_type, upload_id"
_UPLOAD = "key, id, started_us, algorithm, checksum_type, asked, details"


@dataclass(frozen=True, slots=True)
class StoredObject:
    info: ObjectInfo
    payload: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    info: PartInfo
    payload: str


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def decode_key(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


# Buckets


def all_buckets(db: sqlite3.Connection) -> list[BucketInfo]:
    rows = db.execute("SELECT name, region, created_us FROM buckets ORDER BY name")
    return [BucketInfo(name, region, _time(created)) for name, region, created in rows]


def find_bucket(db: sqlite3.Connection, name: str) -> BucketInfo | None:
    row = db.execute("SELECT region, created_us FROM buckets WHERE name = ?", (name,)).fetchone()
    return BucketInfo(name, row[0], _time(row[1])) if row else None


def require_bucket(db: sqlite3.Connection, name: str) -> BucketInfo:
    found = find_bucket(db, name)
    if found is None:
        raise NoSuchBucket(name)
    return found


def insert_bucket(db: sqlite3.Connection, bucket: BucketInfo) -> None:
    row = (bucket.name, bucket.region, _microseconds(bucket.created_at))
    db.execute("INSERT INTO buckets VALUES (?, ?, ?)", row)


def delete_bucket(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM buckets WHERE name = ?", (name,))
    db.execute("DELETE FROM bucket_tags WHERE bucket = ?", (name,))


def bucket_tags(db: sqlite3.Connection, name: str) -> dict[str, str]:
    row = db.execute("SELECT tags FROM bucket_tags WHERE bucket = ?", (name,)).fetchone()
    return json.loads(row[0]) if row else {}


def put_bucket_tags(db: sqlite3.Connection, name: str, tags: Mapping[str, str]) -> None:
    db.execute("INSERT OR REPLACE INTO bucket_tags VALUES (?, ?)", (name, json.dumps(dict(tags))))


# Objects


def has_objects(db: sqlite3.Connection, bucket: str) -> bool:
    return db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (bucket,)).fetchone() is not None


def find_object(db: sqlite3.Connection, bucket: str, key: str) -> StoredObject | None:
    statement = f"SELECT {_OBJECT}, details FROM objects WHERE bucket = ? AND key = ?"
    row = db.execute(statement, (bucket, encode_key(key))).fetchone()
    return _object(bucket, row, json.loads(row[9])) if row else None


def put_object(db: sqlite3.Connection, info: ObjectInfo, payload: str) -> None:
    details = {**_attributes_to_json(info.attributes), "parts": info.parts}
    row = (
        info.bucket,
        encode_key(info.key),
        payload,
        info.size,
        info.etag,
        _microseconds(info.modified_at),
        *_checksum_columns(info.checksum),
        info.upload_id,
        json.dumps(details),
    )
    db.execute(f"INSERT OR REPLACE INTO objects VALUES ({_marks(row)})", row)


def delete_object(db: sqlite3.Connection, bucket: str, key: str) -> str | None:
    """The payload it had."""
    statement = "DELETE FROM objects WHERE bucket = ? AND key = ? RETURNING payload"
    row = db.execute(statement, (bucket, encode_key(key))).fetchone()
    return row[0] if row else None


def scan_objects(
    db: sqlite3.Connection, bucket: str, start: bytes, *, inclusive: bool
) -> Iterator[tuple[bytes, StoredObject]]:
    """In order of key, row by row: whoever stops early has paid for no more."""
    order = ">=" if inclusive else ">"
    statement = f"SELECT {_OBJECT} FROM objects WHERE bucket = ? AND key {order} ? ORDER BY key"
    for row in db.execute(statement, (bucket, start)):
        yield row[0], _object(bucket, row, {})


# Uploads


def find_upload(db: sqlite3.Connection, bucket: str, key: str, upload_id: str) -> UploadInfo | None:
    statement = f"SELECT {_UPLOAD} FROM uploads WHERE bucket = ? AND key = ? AND id = ?"
    row = db.execute(statement, (bucket, encode_key(key), upload_id)).fetchone()
    return _upload(bucket, row) if row else None


def require_upload(db: sqlite3.Connection, bucket: str, key: str, upload_id: str) -> UploadInfo:
    require_bucket(db, bucket)
    found = find_upload(db, bucket, key, upload_id)
    if found is None:
        raise NoSuchUpload(upload_id)
    return found


def insert_upload(db: sqlite3.Connection, upload: UploadInfo) -> None:
    row = (
        upload.bucket,
        encode_key(upload.key),
        upload.upload_id,
        _microseconds(upload.started_at),
        upload.checksum_algorithm,
        upload.checksum_type,
        upload.checksum_asked,
        json.dumps(_attributes_to_json(upload.attributes)),
    )
    db.execute(f"INSERT INTO uploads VALUES ({_marks(row)})", row)


def delete_upload(db: sqlite3.Connection, upload_id: str) -> list[str]:
    """The payloads its parts had."""
    db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
    rows = db.execute("DELETE FROM parts WHERE upload_id = ? RETURNING payload", (upload_id,)).fetchall()
    return [payload for (payload,) in rows]


def scan_uploads(
    db: sqlite3.Connection, bucket: str, start: bytes, *, inclusive: bool = False, after_id: str = ""
) -> Iterator[tuple[bytes, UploadInfo]]:
    """In order of key and id, from the key `start`, behind it, or behind the upload `after_id` of it."""
    values: tuple[str | bytes, ...] = (bucket, start)
    if inclusive:
        condition = "key >= ?"
    elif after_id:
        condition, values = "(key, id) > (?, ?)", (*values, after_id)
    else:
        condition = "key > ?"
    statement = f"SELECT {_UPLOAD} FROM uploads WHERE bucket = ? AND {condition} ORDER BY key, id"
    for row in db.execute(statement, values):
        yield row[0], _upload(bucket, row)


def uploads_before(db: sqlite3.Connection, moment: datetime) -> list[str]:
    rows = db.execute("SELECT id FROM uploads WHERE started_us < ?", (_microseconds(moment),))
    return [upload_id for (upload_id,) in rows]


def uploads_of(db: sqlite3.Connection, bucket: str) -> list[str]:
    rows = db.execute("SELECT id FROM uploads WHERE bucket = ?", (bucket,))
    return [upload_id for (upload_id,) in rows]


# Parts


def put_part(db: sqlite3.Connection, upload_id: str, part: PartInfo, payload: str) -> str | None:
    """The payload that an earlier part of this number had."""
    statement = "SELECT payload FROM parts WHERE upload_id = ? AND number = ?"
    old = db.execute(statement, (upload_id, part.number)).fetchone()
    row = (
        upload_id,
        part.number,
        payload,
        part.size,
        part.etag,
        _microseconds(part.modified_at),
        *_checksum_columns(part.checksum),
    )
    db.execute(f"INSERT OR REPLACE INTO parts VALUES ({_marks(row)})", row)
    return old[0] if old else None


def parts_of(db: sqlite3.Connection, upload_id: str, after: int, limit: int) -> list[StoredPart]:
    rows = db.execute(
        "SELECT number, payload, size, etag, modified_us, algorithm, checksum, checksum_type FROM parts"
        " WHERE upload_id = ? AND number > ? ORDER BY number LIMIT ?",
        (upload_id, after, limit),
    )
    return [
        StoredPart(
            PartInfo(
                number=number, size=size, etag=etag, modified_at=_time(at), checksum=_checksum(*checksum)
            ),
            payload,
        )
        for number, payload, size, etag, at, *checksum in rows
    ]


# Everything


def payloads_in(db: sqlite3.Connection, shard: str) -> set[str]:
    """Those whose id begins with these two digits."""
    bounds = (shard, shard + "g")
    return {
        payload
        for table in ("objects", "parts")
        for (payload,) in db.execute(
            f"SELECT payload FROM {table} WHERE payload >= ? AND payload < ?", bounds
        )
    }


def delete_everything(db: sqlite3.Connection) -> list[str]:
    """The payloads there were."""
    payloads = [
        payload
        for table in ("objects", "parts")
        for (payload,) in db.execute(f"SELECT payload FROM {table}").fetchall()
    ]
    for table in ("buckets", "bucket_tags", "objects", "uploads", "parts"):
        db.execute(f"DELETE FROM {table}")
    return payloads


# Columns


def _object(bucket: str, row: Any, details: dict[str, Any]) -> StoredObject:
    key, payload, size, etag, modified, *checksum, upload_id = row[:9]
    info = ObjectInfo(
        bucket=bucket,
        key=decode_key(key),
        size=size,
        etag=etag,
        modified_at=_time(modified),
        checksum=_checksum(*checksum),
        attributes=_attributes(details),
        parts=tuple(details.get("parts", ())),
        upload_id=upload_id,
    )
    return StoredObject(info, payload)


def _upload(bucket: str, row: Any) -> UploadInfo:
    key, upload_id, started, algorithm, checksum_type, asked, details = row
    return UploadInfo(
        upload_id=upload_id,
        bucket=bucket,
        key=decode_key(key),
        started_at=_time(started),
        attributes=_attributes(json.loads(details)),
        checksum_algorithm=algorithm,
        checksum_type=checksum_type,
        checksum_asked=bool(asked),
    )


def _attributes_to_json(attributes: Attributes) -> dict[str, Any]:
    return {
        "headers": dict(attributes.headers),
        "metadata": dict(attributes.metadata),
        "tags": dict(attributes.tags),
    }


def _attributes(details: dict[str, Any]) -> Attributes:
    return Attributes(details.get("headers", {}), details.get("metadata", {}), details.get("tags", {}))


def _checksum_columns(checksum: Checksum | None) -> tuple[str | None, str | None, str | None]:
    return (checksum.algorithm, checksum.value, checksum.type) if checksum else (None, None, None)


def _checksum(algorithm: Any, value: Any, kind: Any) -> Checksum | None:
    return Checksum(algorithm, value, kind) if algorithm else None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _marks(row: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(row))
