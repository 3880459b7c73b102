"""What an experiment is: something done to a running Clary, the promise that must hold, and the guarantee behind it.

`run` returns the ledger's numbers when the promise held and raises `Broken` as soon as it did not. Nothing else
counts as noticing a sabotage: an experiment that fails for another reason has failed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.platform import Platform

SABOTAGE_DIR = Path(__file__).with_name("sabotage")


class Broken(Exception):
    """The promise did not hold; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one run of an experiment goes: `sabotage` is empty when Clary runs as it is."""

    seed: int
    sabotage: str = ""

    @property
    def random(self) -> Random:
        return Random(self.seed)

    @property
    def environment(self) -> dict[str, str]:
        """For every process of the server under test."""
        if not self.sabotage:
            return {}
        return {"CLARY_SABOTAGE": self.sabotage, "PYTHONPATH": str(SABOTAGE_DIR)}

    def platform(self, **more: str) -> Platform:
        return Platform(environment={**self.environment, **more})


@dataclass(frozen=True, slots=True)
class Experiment:
    name: str
    done: str
    promise: str
    sabotage: str
    sabotage_does: str
    run: Callable[[Conditions], str]


def hold(promise: bool, seen: str) -> None:
    """Raises `Broken` with what was seen instead."""
    if not promise:
        raise Broken(seen)


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Raises `Broken` when it is not so in time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        hold(time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what}")
        time.sleep(0.01)
