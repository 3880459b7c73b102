"""Application Auto Scaling of endpoint variants. `resources` makes all of them."""

from collections.abc import Mapping

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {}
"""Operation → members that change nothing here."""
