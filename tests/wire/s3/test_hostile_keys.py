"""Keys that would like to be paths, as they come over the wire: they stay keys, and nothing is written elsewhere."""

import os
import random
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.testing.wire import ENDPOINT_URL, TEST_REGION, TEST_ROOT, Clients, connect
from clary.wire.heads import Head
from clary.wire.messages import Response
from s3.harness import BUCKET, MAX_OBJECT, serve

COUNT = 1000
_PIECES = [
    *("..", "../", "/", "//", "\\", "..\\", ".", "~", "$HOME", "*", "|", ";", "`id`", "etc/passwd", "con", "\u202e"),
    *("\x00", "\x01", "\n", "\r\n", "\x7f", "\t", "é", "中", "e\u0301", "\U0001f600", "\ufeff", " ", "+"),
    *("&", "=", "?", "#"),
    *("%2e%2e%2f", "%00", "%252e", "%", "a" * 200),
]  # fmt: skip
_RAW = [
    *(b"%2e%2e", b"%2E%2E%2F", b"..", b".", b"/", b"//", b"%2f", b"%5c", b"%00", b"%0d%0a", b"%252e%252e%252f"),
    *(b"%ff", b"%c0%ae%c0%ae%c0%af", b"%ed%a0%80", b"%", b"%zz", b"+", b"a" * 300),
]  # fmt: skip


class World:
    """A store in `root/objects` with S3 before it, and every path that was opened for writing meanwhile."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.written: set[str] = set()
        self._blobs = FilesystemBlobs(root / "objects", SystemClock(), sync=False)
        self._server = serve(self._blobs, MAX_OBJECT)
        self.clients: Clients = connect(self._server)
        self.s3: Any = self.clients.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        opens = os.open

        def noting(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.written.add(os.fsdecode(path))
            return opens(path, flags, *args, **more)

        monkeypatch.setattr(os, "open", noting)

    def close(self) -> None:
        self._server.close()
        self._blobs.close()

    def send(self, method: str, target: bytes, body: bytes = b"") -> Response:
        """A request whose path is signed and sent as it is."""
        url = f"{ENDPOINT_URL}{target.decode('latin-1')}"
        request = AWSRequest(method, url, data=body)
        credentials = Credentials(TEST_ROOT.access_key_id, TEST_ROOT.secret_access_key)
        S3SigV4Auth(credentials, "s3", TEST_REGION).add_auth(request)
        headers = {name.lower().encode(): value.encode() for name, value in request.headers.items()}
        headers[b"host"] = ENDPOINT_URL.partition("://")[2].encode()
        return self.clients.exchange(Head(method.encode(), target, headers), body)

    def check(self) -> None:
        """Whatever was written lies where payloads lie, under a name that this server drew."""
        place = self.root / "objects" / "tmp"
        assert self.written
        for path in map(Path, self.written):
            assert path.parent == place, path
            int(path.name, 16)
        assert [path.name for path in self.root.iterdir()] == ["objects"]
        names = {path.name for path in (self.root / "objects").iterdir()}
        assert names <= {"data", "tmp", "lock", "reserve", "index.db", "index.db-wal", "index.db-shm"}
        for path in (self.root / "objects" / "data").rglob("*"):
            int(path.name, 16)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.close()


@pytest.mark.slow
def test_S3_a_thousand_hostile_keys_are_nothing_but_keys(world: World) -> None:
    rng = random.Random(11)
    keys = {"../../../../escape", "/etc/passwd", "..", ".", "/", "//", "\x00", "é" * 512, "../" * 341 + "x"}
    while len(keys) < COUNT:
        key = "".join(rng.choices(_PIECES, k=rng.randint(1, 6)))
        keys |= {key} if len(key.encode()) <= 1024 else set()
    for key in keys:
        target = f"/{BUCKET}/{quote(key, safe='')}".encode()
        assert world.send("PUT", target, key.encode()).status == HTTPStatus.OK, key
    for key in keys:
        assert world.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    pages = world.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    assert [found["Key"] for page in pages for found in page["Contents"]] == sorted(keys, key=str.encode)
    world.check()


def test_S3_paths_that_play_tricks_name_a_key_or_nothing(world: World) -> None:
    rng = random.Random(12)
    statuses = set()
    for _ in range(COUNT):
        target = b"/" + BUCKET.encode() + b"/" + b"".join(rng.choices(_RAW, k=rng.randint(1, 6)))
        statuses.add(world.send("PUT", target, b"x").status)
    assert HTTPStatus.OK in statuses
    assert statuses <= {HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}
    world.check()
