"""A disk that is full at any one write of an upload: refused in S3's own form, nothing lost, nothing half there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.testing.wire import connect
from failing_disk import FailingDisk, installed
from s3.harness import BUCKET, serve

KEY = "key"
OLD, NEW = b"old" * 1000, b"new" * 100_000
MOST_WRITES = 200


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    with installed(tmp_path, monkeypatch) as disk:
        yield disk


class World:
    """A store below `root` with S3 before it; `restart` opens it anew, as the next process would."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open()
        self.client.create_bucket(Bucket=BUCKET)

    def _open(self) -> None:
        self.blobs = FilesystemBlobs(self._root, SystemClock())
        self._server = serve(self.blobs, 1 << 30)
        self.client = connect(self._server).client("s3")

    def close(self) -> None:
        self._server.close()
        self.blobs.close()

    def restart(self) -> None:
        self.close()
        self._open()

    def content(self, key: str = KEY) -> bytes:
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def keys(self) -> list[str]:
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def payloads(self) -> int:
        assert list((self._root / "tmp").iterdir()) == []
        return len(list((self._root / "data").glob("*/*")))


def put(world: World) -> None:
    world.client.put_object(Bucket=BUCKET, Key=KEY, Body=NEW)


def put_and_checkpoint(world: World) -> None:
    """Every commit goes on from SQLite's log into its file, which otherwise happens once in a thousand pages."""
    writer = world.blobs._index._writer
    assert writer is not None
    writer.execute("PRAGMA wal_autocheckpoint = 1")
    put(world)


def put_in_parts(world: World) -> None:
    upload = {"Bucket": BUCKET, "Key": KEY}
    upload["UploadId"] = world.client.create_multipart_upload(**upload)["UploadId"]
    etag = world.client.upload_part(**upload, PartNumber=1, Body=NEW)["ETag"]
    world.client.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [True, False], ids=["full", "once"])
@pytest.mark.parametrize("write", [put, put_and_checkpoint, put_in_parts])
def test_an_upload_refused_at_any_write_leaves_what_was_there(
    tmp_path: Path, disk: FailingDisk, write: Callable[[World], None], lasting: bool
) -> None:
    world = World(tmp_path)
    for at in range(1, MOST_WRITES):
        world.client.put_object(Bucket=BUCKET, Key=KEY, Body=OLD)
        with disk.full_at(at, lasting=lasting) as attempt:
            refusal = refused(lambda: write(world))
        if not attempt.was_hit:
            break
        where = f"at write {at}: {attempt.failed}"
        if refusal is not None:
            assert refusal["Error"]["Code"] == "InsufficientStorage", where
            assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 507, where
        # Without a refusal it is there: what failed was not needed, such as moving the log into the file.
        expected = NEW if refusal is None else OLD
        assert (world.keys(), world.content()) == ([KEY], expected), where
        world.restart()
        assert (world.keys(), world.content()) == ([KEY], expected), where
        put(world)
        assert world.content() == NEW, where
        for upload in world.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            world.client.abort_multipart_upload(Bucket=BUCKET, Key=KEY, UploadId=upload["UploadId"])
        assert world.payloads() == 1, where
    else:
        raise AssertionError("there was no end of writes")
    assert at > 9, f"too few writes were seen: {attempt.writes}"
    assert any("sqlite" in one for one in attempt.writes)
    assert world.content() == NEW
    world.close()


def refused(call: Callable[[], None]) -> Any:
    try:
        call()
    except ClientError as error:
        return error.response
    return None
