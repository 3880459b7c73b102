"""What every blob store promises (`clary.blobs.base`), over each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blobs.harness import BUCKET, STORES, Place


@pytest.fixture(params=sorted(STORES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = STORES[request.param](tmp_path / "objects")
    place.store.create_bucket(BUCKET, "eu-west-1")
    yield place
    place.store.close()
    place.reader.close()  # type: ignore[attr-defined]
