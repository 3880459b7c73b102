"""pytest fixtures for people who test code that uses SageMaker: found by pytest as soon as Clary is installed.

    def test_it_deploys(clary):
        deploy("my-endpoint")                       # the code under test: boto3, SageMaker SDK, AWS CLI …
        answer = boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="my-endpoint", Body=b"1,2")

Loading this costs nothing; the server starts with the first test that asks for it.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clary.testing.server import RunningServer


@pytest.fixture(scope="session")
def clary_server() -> "Iterator[RunningServer]":
    """A server of this test session's own, on temporary data and a free port; gone at the end."""
    from clary.testing.server import RunningServer  # brings botocore: only where it is wanted

    with RunningServer(None, "--ephemeral") as server:
        yield server


@pytest.fixture
def clary(clary_server: "RunningServer", monkeypatch: pytest.MonkeyPatch) -> "RunningServer":
    """An empty server, with AWS clients of this process, and of what it starts, pointed at it for one test."""
    from clary.cli import env

    clary_server.reset()
    for name in env.unwanted(os.environ):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.full(clary_server.running, os.environ).items():
        monkeypatch.setenv(name, value)
    if "boto3" in sys.modules:  # its default session remembers the environment it was made in
        monkeypatch.setattr(sys.modules["boto3"], "DEFAULT_SESSION", None)
    return clary_server
