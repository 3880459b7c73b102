"""A full or failing disk refuses the write by name, and what was there stays."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from clary.blobs.base import Attributes, BlobError, OutOfSpace, StorageFailed
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.clock import FakeClock

BUCKET = "bucket"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FilesystemBlobs]:
    store = FilesystemBlobs(tmp_path, FakeClock())
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "kept", b"kept")
    yield store
    store.close()


def put(store: FilesystemBlobs, key: str, content: bytes) -> None:
    with store.stage() as staged:
        staged.write(content)
        store.put(BUCKET, key, staged, etag="e", attributes=Attributes())


def assert_only_kept(store: FilesystemBlobs, root: Path) -> None:
    assert [info.key for info in store.objects(BUCKET).objects] == ["kept"]
    with store.open(BUCKET, "kept") as opened:
        assert opened.read(100) == b"kept"
    assert len(list((root / "data").glob("*/*"))) == 1
    assert list((root / "tmp").iterdir()) == []


def failing(call: Callable[..., Any], code: int, at: int) -> Callable[..., Any]:
    """The same call, but the one numbered `at` fails."""
    count = 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(code, os.strerror(code))
        return call(*args, **kwargs)

    return fails


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, StorageFailed)],
)
@pytest.mark.parametrize(
    ("name", "at"), [("open", 1), ("write", 1), ("fsync", 1), ("rename", 1), ("fsync", 2)]
)
def test_a_put_that_fails_leaves_no_trace(
    store: FilesystemBlobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    at: int,
    code: int,
    error: type[BlobError],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, name, failing(getattr(os, name), code, at))
        with pytest.raises(error):
            put(store, "kept", b"replaced")
    assert_only_kept(store, tmp_path)
    put(store, "later", b"works again")


def test_an_index_that_is_full_refuses_and_takes_the_payload_back(
    store: FilesystemBlobs, tmp_path: Path
) -> None:
    writer = store._index._writer
    assert writer is not None
    writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OutOfSpace):
        for number in range(200):
            put(store, f"{number}-" + "k" * 1000, b"x")
    held = len(store.objects(BUCKET).objects)
    assert len(list((tmp_path / "data").glob("*/*"))) == held
    store.delete_many(BUCKET, [info.key for info in store.objects(BUCKET).objects if info.key != "kept"])
    assert_only_kept(store, tmp_path)
    put(store, "later", b"works again")


def test_on_a_full_disk_objects_can_still_be_deleted(
    store: FilesystemBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "large", b"x" * 1000)
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_size > 1 << 20
    write = store._index.write

    def full() -> AbstractContextManager[Connection]:
        if reserve.exists():
            raise OutOfSpace("no space left")
        return write()

    with monkeypatch.context() as patched:
        patched.setattr(store._index, "write", full)
        with pytest.raises(OutOfSpace):
            put(store, "more", b"x")
        assert store.delete(BUCKET, "large")
    assert reserve.exists()
    assert_only_kept(store, tmp_path)


def test_the_last_room_is_not_taken_for_deletions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a start was given back, and ext4 leaves a file what it got of an allocation that failed."""
    little = SimpleNamespace(f_frsize=1, f_blocks=1 << 30, f_bfree=4 << 20, f_bavail=4 << 20)
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    store = FilesystemBlobs(tmp_path, FakeClock(), sync=False)
    assert (tmp_path / "index.db-wal").stat().st_size < 1 << 20
    assert not (tmp_path / "reserve").exists()
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**vars(little), "f_bavail": 16 << 20}))
    store._reserve.hold()
    assert (tmp_path / "index.db-wal").stat().st_size > 4 << 20
    assert (tmp_path / "reserve").stat().st_size == 4 << 20
    store.close()


def test_on_a_full_disk_two_who_delete_at_once_both_succeed(
    store: FilesystemBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are refused first; the second finds that the first one has given the space back already."""
    put(store, "one", b"x")
    put(store, "other", b"x")
    reserve = tmp_path / "reserve"
    write = store._index.write
    refused: list[str] = []

    def full() -> AbstractContextManager[Connection]:
        if not refused:
            refused.append("first")
            assert store.delete(BUCKET, "other")  # the other one is refused as well, and frees the space
            raise OutOfSpace("no space left")
        if len(refused) == 1:
            refused.append("second")
            raise OutOfSpace("no space left")
        return write()

    with monkeypatch.context() as patched:
        patched.setattr(store._index, "write", full)
        patched.setattr(store._reserve, "hold", lambda: None)  # there is no room for it yet
        assert store.delete(BUCKET, "one")
    assert not reserve.exists()
    assert_only_kept(store, tmp_path)


WRITES_TOO_MUCH = """
import resource
import sys
from pathlib import Path
from clary.blobs.base import Attributes, OutOfSpace
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock

store = FilesystemBlobs(Path(sys.argv[1]), SystemClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with store.stage() as staged:
        for _ in range(64):
            staged.write(b"x" * 65536)
        store.put("bucket", "big", staged, etag="e", attributes=Attributes())
except OutOfSpace as error:
    print(error)
store.close()
"""


def test_a_real_limit_of_the_system_is_no_space_left(tmp_path: Path) -> None:
    store = FilesystemBlobs(tmp_path, FakeClock())
    store.create_bucket(BUCKET, "us-east-1")
    put(store, "kept", b"kept")
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", WRITES_TOO_MUCH, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("no space left while writing an object\n", "")
    store = FilesystemBlobs(tmp_path, FakeClock())
    assert_only_kept(store, tmp_path)
    store.close()
