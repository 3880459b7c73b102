"""Who serves the user of a sticky key: weighted rendezvous hashing. Pure.

Every choice gets a score from a hash of the key and the choice's own name, and the highest score wins. So all gateways
agree without a word, nothing is kept, a choice that leaves moves only its own users, and a weight that grows or shrinks
moves users only to, or from, that choice. Over many keys each choice has its share by weight
(score = weight / -ln u, with u even between 0 and 1: the largest of such scores falls to each as its weight says).
Scores are compared by their logarithms, so that the smallest weight there is still counts.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import inf, log
from typing import TypeVar

_V = TypeVar("_V")

_SPACE = float(1 << 64)


def choose(key: str, choices: Iterable[tuple[_V, str, float]]) -> _V | None:
    """One of the choices (value, name, weight); None when none has weight."""
    best, highest = None, -inf
    for value, name, weight in choices:
        if weight > 0:
            score = log(weight) - log(-log(_even(key, name)))
            if score > highest:
                best, highest = value, score
    return best


def preferred(key: str, choices: Sequence[tuple[_V, str]]) -> _V | None:
    """One of equal choices (value, name); None when there is none."""
    return max(choices, key=lambda choice: _even(key, choice[1]))[0] if choices else None


def ranked(key: str, choices: Iterable[tuple[_V, str]]) -> list[_V]:
    """Equal choices (value, name), the preferred one first, then the one preferred without it, and so on."""
    ordered = sorted(choices, key=lambda choice: _even(key, choice[1]), reverse=True)
    return [value for value, _ in ordered]


def _even(key: str, name: str) -> float:
    """A number above 0 and below 1 that the two always give."""
    digest = blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
    return min((int.from_bytes(digest) + 0.5) / _SPACE, 1.0 - 2**-53)
