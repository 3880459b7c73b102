"""S3 as botocore sees it: real requests, signed and serialized by it, answered in process."""

from collections.abc import Iterator
from typing import Any

import pytest

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.testing.wire import connect
from clary.wire.server import WireServer
from s3.harness import BUCKET, MAX_OBJECT, serve


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesystemBlobs]:
    blobs = FilesystemBlobs(tmp_path_factory.mktemp("objects"), SystemClock(), sync=False)
    yield blobs
    blobs.close()


@pytest.fixture(scope="module")
def server(blobs: FilesystemBlobs) -> Iterator[WireServer]:
    server = serve(blobs, MAX_OBJECT)
    yield server
    server.close()


@pytest.fixture(scope="module")
def connected(server: WireServer) -> Any:
    return connect(server).client("s3")


@pytest.fixture
def client(blobs: FilesystemBlobs, connected: Any) -> Any:
    """A client of a store that holds one empty bucket."""
    blobs.clear()
    connected.create_bucket(Bucket=BUCKET)
    return connected
