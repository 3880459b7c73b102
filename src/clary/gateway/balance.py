"""Which variant, and which of its targets, takes a request. Pure: chance is handed in.

Variants are chosen by weight (`P = weight / sum of weights`), targets by the variant's routing: at random, or the one
with the fewest requests outstanding at this gateway. Up to `_LOOK_AT_ALL` targets all are compared, beyond that two
drawn ones (the power of two choices), so the cost stays flat.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from clary.domain.routes import Routing

_LOOK_AT_ALL = 8

Chance = Callable[[], float]
"""A number from 0 up to but not including 1."""

_V = TypeVar("_V")


class Loaded(Protocol):
    outstanding: int


_T = TypeVar("_T", bound=Loaded)


class Weighted(Generic[_V]):
    """A choice among values by weight. Weights of zero are never drawn."""

    def __init__(self, weighted: Sequence[tuple[_V, float]]) -> None:
        self._values = [value for value, weight in weighted if weight > 0]
        self._bounds = list(accumulate(weight for _, weight in weighted if weight > 0))

    def choose(self, chance: Chance) -> _V | None:
        """One of the values; None when there is none with weight."""
        if len(self._values) == 1:
            return self._values[0]
        if not self._values:
            return None
        position = bisect_right(self._bounds, chance() * self._bounds[-1])
        return self._values[min(position, len(self._values) - 1)]  # rounding may reach the last bound


def choose_target(
    targets: Sequence[_T], routing: Routing, chance: Chance, without: Collection[_T] = ()
) -> _T | None:
    """The target for one request, none of `without`; None when there is no other."""
    if without:
        targets = [target for target in targets if target not in without]
    if len(targets) <= 1:
        return targets[0] if targets else None
    if routing == "RANDOM":
        return targets[int(chance() * len(targets))]
    if len(targets) > _LOOK_AT_ALL:
        return _less_loaded_of_two(targets, chance)
    least = min(target.outstanding for target in targets)
    idlest = [target for target in targets if target.outstanding == least]
    return idlest[int(chance() * len(idlest))]


def _less_loaded_of_two(targets: Sequence[_T], chance: Chance) -> _T:
    first = int(chance() * len(targets))
    second = int(chance() * (len(targets) - 1))
    second += second >= first  # another one than the first, each as likely
    a, b = targets[first], targets[second]
    return a if a.outstanding <= b.outstanding else b
