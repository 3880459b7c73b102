"""A real host process over the tests' own frameworks: `host_main.py SETTINGS`."""

import logging
import sys
from pathlib import Path

from clary import settings
from clary.catalog import Catalog
from clary.host.__main__ import run

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run(settings.read(Path(sys.argv[1])), Catalog.load(Path(__file__).parent / "frameworks"))
