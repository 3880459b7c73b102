"""One real server for all stories that do not stop it: started on first need, stopped with the session."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.testing.server import RunningServer


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with RunningServer(None, "--ephemeral") as running:
        running.wait_for_environment("xgboost")
        yield running


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for data directories. Its path is short, for the sockets below them; pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="clary-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)  # what a failed test left may still be writing
