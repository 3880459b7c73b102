"""What several contract suites stand on."""

from collections.abc import Iterator

import pytest

from engines.harness import TestEngine, running_engine, why_none


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """A container engine of the tests' own."""
    if reason := why_none():
        pytest.skip(reason)
    with running_engine() as running:
        yield running
