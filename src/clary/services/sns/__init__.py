"""SNS: topics and their HTTP subscribers. `resources` makes all of them."""

from collections.abc import Mapping

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {}
"""Operation → members that change nothing here."""
