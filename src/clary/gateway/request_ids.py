"""Request ids: UUID-shaped and different for every request of every gateway, for a few hundred nanoseconds each."""

import os
from collections.abc import Callable
from itertools import count

RequestIds = Callable[[], str]


def request_ids(seed: bytes | None = None) -> RequestIds:
    """A source of ids: a random part for this process, and a number that goes on."""
    digits = (seed or os.urandom(8)).hex()
    prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[13:16]}-"
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers):012x}"
