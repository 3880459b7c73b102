"""A writer that is killed at a chosen step; run as a program by `test_crash`.

Every call that touches the disk is counted: files opened, written, made durable, renamed, linked, removed, and
every statement on the index. The process is killed before call number N. What was acknowledged until then stands,
line by line, on standard output. With `careless` the index is committed before the payload has its place, which
is what the store must never do.
"""

import hashlib
import json
import os
import secrets
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clary.blobs.base import Attributes, PartInfo
from clary.blobs.filesystem import FilesystemBlobs
from clary.blobs.payloads import Payloads, StagedFile
from clary.domain.clock import SystemClock

BUCKET = "bucket"
PIECE = b"0123456789abcdef" * 512


class Killer:
    def __init__(self, at: int) -> None:
        self.calls = 0
        self._at = at

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return call(*args, **kwargs)

        return counted

    def step(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    root, at = Path(sys.argv[1]), int(sys.argv[2])
    store = FilesystemBlobs(root, SystemClock())
    store.create_bucket(BUCKET, "us-east-1")
    seed(store)
    killer = Killer(at)
    if "careless" in sys.argv:
        setattr(Payloads, "placed", _placed_too_late)  # noqa: B010
    _count_everything(store, killer)
    story(store)
    print(json.dumps({"calls": killer.calls}), flush=True)


def seed(store: FilesystemBlobs) -> None:
    for key in ("kept", "replaced", "deleted"):
        acknowledge(put(store, key, key.encode()))


def story(store: FilesystemBlobs) -> None:
    """A put, a replacement, a copy, a deletion, and an upload in parts with one part uploaded twice."""
    acknowledge(put(store, "new", PIECE))
    acknowledge(put(store, "replaced", b"again"))
    with store.open(BUCKET, "kept") as source:
        store.copy(source, BUCKET, "copy", attributes=Attributes())
    acknowledge(("copy", b"kept"))
    store.delete(BUCKET, "deleted")
    acknowledge(("deleted", None))
    upload = store.create_upload(
        BUCKET, "big", Attributes(), checksum_algorithm="", checksum_type="FULL_OBJECT", checksum_asked=False
    )
    parts: list[PartInfo] = []
    for number, content in ((1, b"first"), (2, b"wrong"), (2, PIECE)):
        with store.stage() as staged:
            staged.write(content)
            part = store.put_part(upload, number, staged, etag=hashlib.md5(content).hexdigest())
        parts = [*parts[: number - 1], part]
    store.complete(upload, parts, etag="e-2")
    acknowledge(("big", b"first" + PIECE))


def put(store: FilesystemBlobs, key: str, content: bytes) -> tuple[str, bytes | None]:
    with store.stage() as staged:
        staged.write(content[: len(content) // 2])
        staged.write(content[len(content) // 2 :])
        store.put(BUCKET, key, staged, etag=hashlib.md5(content).hexdigest(), attributes=Attributes())
    return key, content


def acknowledge(what: tuple[str, bytes | None]) -> None:
    key, content = what
    print(json.dumps({"key": key, "md5": content and hashlib.md5(content).hexdigest()}), flush=True)


@contextmanager
def _placed_too_late(payloads: Payloads, staged: StagedFile) -> Iterator[str]:
    payload = secrets.token_hex(16)
    yield payload
    payloads._place(staged, payload)


def _count_everything(store: FilesystemBlobs, killer: Killer) -> None:
    for name in ("open", "write", "fsync", "link", "rename", "replace", "unlink", "copy_file_range"):
        setattr(os, name, killer.before(getattr(os, name)))

    class Counted(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            killer.step()
            return super().execute(*args)

    connect: Callable[..., Any] = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Counted, **kwargs)
    store._index.close()  # so that every connection from here on is a counted one


if __name__ == "__main__":
    main()
