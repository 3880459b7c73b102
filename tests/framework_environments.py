"""The Python of a framework's environment, as Clary builds it for all data directories of a user.

Run as a program it builds all there are, so that no test waits for one: `make test` does.
"""

import functools
import os
import time
from pathlib import Path

import pytest

from clary import settings
from clary.catalog import Catalog
from clary.host.environments import EnvironmentFailed, Environments


@functools.cache
def python_of(framework: str, *, is_older: bool = False) -> Path:
    """Built where it is not there yet; the test is left out where it cannot be built."""
    manifest = Catalog.load().named(framework)
    assert manifest is not None, framework
    manifest = manifest.in_older_environment() if is_older else manifest
    try:
        return _environments().obtain(manifest, lambda text: None).python
    except EnvironmentFailed as error:
        pytest.skip(f"the environment of {framework} cannot be built here: {error}")


def build_all() -> None:
    environments = _environments()
    for manifest in Catalog.load().manifests:
        older = [manifest.in_older_environment()] if manifest.older is not None else []
        for wanted in (manifest, *older):
            began = time.monotonic()
            try:
                environments.obtain(wanted, lambda text: None)
                told = "ready"
            except EnvironmentFailed as error:
                told = f"cannot be built here, its tests are left out: {error}"
            print(f"  {wanted.name} {wanted.version}: {told} ({time.monotonic() - began:.0f} s)", flush=True)


def _environments() -> Environments:
    known = settings.load({})
    return Environments(
        known.cache_dir / "environments", known.index_urls, os.environ, find_links=known.find_links
    )


if __name__ == "__main__":
    build_all()
