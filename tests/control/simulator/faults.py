"""What goes wrong with the calls out of the reconciler: they fail before they did anything, or control ends after.

All chance is the dice of the story, and all calls draw from them in turn: the same seed fails in the same places.
"""

import random
from typing import Any


class Killed(Exception):
    """Control is gone in the middle of its work."""


class Faults:
    """`rate` is how likely a call is hit; nothing is drawn where nothing can happen."""

    def __init__(self, dice: random.Random, rate: float) -> None:
        self._dice = dice
        self.rate = rate

    def happens(self, part: float) -> bool:
        """As often as this part of all faults."""
        return self.rate > 0.0 and self._dice.random() < self.rate * part

    def before_call(self, error: type[Exception]) -> None:
        if self.happens(0.5):
            raise error("it fails now")

    def after_call(self) -> None:
        if self.happens(0.5):
            raise Killed("killed")


class Faulty:
    """A thing of which these calls can be hit."""

    def __init__(self, thing: object, calls: set[str], error: type[Exception], faults: Faults) -> None:
        self._thing, self._calls, self._error, self._faults = thing, calls, error, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name not in self._calls:
            return found

        def call(*args: object, **kwargs: object) -> object:
            self._faults.before_call(self._error)
            result = found(*args, **kwargs)
            self._faults.after_call()
            return result

        return call
