"""A disk that fills up, for whoever asks for it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from failing_disk import FailingDisk, installed


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="clary-") as directory:
        yield Path(directory)


@pytest.fixture
def disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    with installed(root, monkeypatch) as disk:
        yield disk
