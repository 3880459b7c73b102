"""`python -m clary` is `clary`."""

import sys

from clary.cli import main

sys.exit(main())
