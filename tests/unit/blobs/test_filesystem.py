"""What is particular to the store in a directory: readers beside the writer, sweeping, sharing payloads."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from clary.blobs import records
from clary.blobs.base import Attributes, NoSuchBucket, StorageFailed
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.clock import FakeClock

BUCKET = "bucket"


def open_store(root: Path, clock: FakeClock | None = None) -> FilesystemBlobs:
    return FilesystemBlobs(root, clock or FakeClock(), sync=False)


def put(store: FilesystemBlobs, key: str, content: bytes) -> None:
    with store.stage() as staged:
        staged.write(content)
        store.put(BUCKET, key, staged, etag="e", attributes=Attributes())


def read(store: FilesystemBlobs, key: str) -> bytes:
    with store.open(BUCKET, key) as opened:
        return opened.read(1 << 20)


def test_a_reader_works_before_beside_and_after_the_writer(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    reader = FilesystemBlobs(root, read_only=True)
    assert reader.buckets() == []
    with pytest.raises(NoSuchBucket):
        reader.head(BUCKET, "k")
    assert not root.exists()
    store = open_store(root)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"x")
    assert read(reader, "k") == b"x"
    store.close()
    assert read(reader, "k") == b"x"
    reader.close()
    late = FilesystemBlobs(root, read_only=True)
    assert read(late, "k") == b"x"
    late.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    reader = FilesystemBlobs(tmp_path, read_only=True)
    with pytest.raises(StorageFailed, match="for reading only"):
        reader.delete_bucket(BUCKET)
    reader.close()


def test_only_one_process_writes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StorageFailed, match="another process already writes"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_opening_sweeps_what_no_row_names_and_nothing_else(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"x")
    store.close()
    orphans = [tmp_path / "data" / "00" / ("00" + "0" * 30), tmp_path / "tmp" / "half"]
    for orphan in orphans:
        orphan.write_bytes(b"orphan")
    FilesystemBlobs(tmp_path, read_only=True).close()
    assert all(orphan.exists() for orphan in orphans)
    store = open_store(tmp_path)
    assert not any(orphan.exists() for orphan in orphans)
    assert read(store, "k") == b"x"
    store.close()


def test_ending_an_old_upload_frees_its_parts(tmp_path: Path) -> None:
    clock = FakeClock()
    store = open_store(tmp_path, clock)
    store.create_bucket(BUCKET, "us-east-1")
    upload = store.create_upload(
        BUCKET, "k", Attributes(), checksum_algorithm="", checksum_type="FULL_OBJECT", checksum_asked=False
    )
    with store.stage() as staged:
        store.put_part(upload, 1, staged, etag="e")
    clock.advance(timedelta(days=7, seconds=1).total_seconds())
    assert store.abort_older(timedelta(days=7)) == 1
    assert store.uploads(BUCKET).uploads == ()
    assert list((tmp_path / "data").glob("*/*")) == []
    store.close()


def test_a_copy_shares_the_file_where_it_can_and_copies_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"payload")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "no links here")

    with store.open(BUCKET, "k") as source:
        store.copy(source, BUCKET, "shared", attributes=Attributes())
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(os, "copy_file_range", refuse)
        store.copy(source, BUCKET, "copied", attributes=Attributes())
    inodes = [path.stat().st_ino for path in (tmp_path / "data").glob("*/*")]
    assert (len(inodes), len(set(inodes))) == (3, 2)
    assert read(store, "shared") == read(store, "copied") == b"payload"
    store.close()


def test_a_missing_payload_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"x")
    next((tmp_path / "data").glob("*/*")).unlink()
    with pytest.raises(StorageFailed, match="is missing"):
        store.open(BUCKET, "k")
    store.close()


def test_readers_and_writers_of_one_key_never_meet_half_an_object(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    reader = FilesystemBlobs(tmp_path, read_only=True)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"0" * 5000)
    torn: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            content = read(reader, "k")
            if len(content) != 5000 or len(set(content)) != 1:
                torn.append(content)

    def write(digit: bytes) -> None:
        for _ in range(60):
            put(store, "k", digit * 5000)

    readers = [threading.Thread(target=look) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(digit,)) for digit in (b"1", b"2")]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert torn == []
    assert len(list((tmp_path / "data").glob("*/*"))) == 1
    reader.close()
    store.close()


def steps_of(store: FilesystemBlobs, look: Callable[[], object]) -> int:
    """How many of SQLite's instructions it takes: a cost that no other process changes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store._index.read() as connection:
        connection.set_progress_handler(count, 1)
    look()
    with store._index.read() as connection:
        connection.set_progress_handler(None, 1)
    return steps


def test_a_page_costs_the_same_anywhere_and_skips_what_is_rolled_up(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "k", b"")
    with store._index.write() as db:
        template = records.find_object(db, BUCKET, "k")
        assert template is not None
        for number in range(5000):
            info = replace(template.info, key=f"{number % 2}/{number:05}")
            records.put_object(db, info, f"{number:032}")
    first = steps_of(store, lambda: store.objects(BUCKET, limit=10))
    last = steps_of(store, lambda: store.objects(BUCKET, limit=10, start_after="1/04900"))
    rolled = steps_of(store, lambda: store.objects(BUCKET, delimiter="/"))
    assert 0 < last <= first * 2
    assert 0 < rolled <= first * 2
    store.close()
