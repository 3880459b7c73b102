"""One real server for all stories that do not stop it: started on first need, stopped with the session."""

from collections.abc import Iterator

import pytest

from clary.testing.server import RunningServer


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with RunningServer(None, "--ephemeral") as running:
        running.wait_for_environment("xgboost")
        yield running
