"""The Python of a framework's environment, as Clary builds it for all data directories of a user."""

import functools
import os
from pathlib import Path

import pytest

from clary import settings
from clary.catalog import Catalog
from clary.host.environments import EnvironmentFailed, Environments


@functools.cache
def python_of(framework: str, *, is_older: bool = False) -> Path:
    """Built where it is not there yet; the test is left out where it cannot be built."""
    known = settings.load({})
    environments = Environments(
        known.cache_dir / "environments", known.index_urls, os.environ, find_links=known.find_links
    )
    manifest = Catalog.load().named(framework)
    assert manifest is not None, framework
    manifest = manifest.in_older_environment() if is_older else manifest
    try:
        return environments.obtain(manifest, lambda text: None).python
    except EnvironmentFailed as error:
        pytest.skip(f"the environment of {framework} cannot be built here: {error}")
