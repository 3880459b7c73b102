"""What a gateway knows of the models at its targets, and which target should have one.

A book says which models a target had loaded when it was last heard of, so that a call of such a model goes there at
once. It may be out of date: the host unloads models when there is no room for others. Then the container says
404, the entry goes, and the host is asked. A book belongs to its target and ends with it.

Models are placed by rendezvous hashing with bounded loads: each model has an order among a fleet's targets that all
gateways agree on, and the first in rotation that is not much busier than the others takes the call. So each target
holds its part of the models, and a model in demand spreads to as many as it needs.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from clary.gateway import sticky

BUSY = 16
"""A target with no more calls than this under way is never passed by."""

_TOLERATED = 1.25  # times the mean of all
_MOST_KNOWN = 1 << 16


class Resident:
    """A model at a target. `line` begins the requests for it; `calls` are those the host does not know of yet."""

    __slots__ = ("calls", "last_at", "line", "name", "runs_script", "under_way")

    def __init__(self, name: str, line: bytes, *, runs_script: bool = False) -> None:
        self.name: Final = name
        self.line: Final = line
        self.runs_script: Final = runs_script
        self.calls = 0
        self.last_at = 0.0  # seconds since the epoch
        self.under_way = 0  # counted only of models that are not kept


class Waiter(Protocol):
    """A call that waits until its model is loaded. One of the two is called, once, on the loop; it must not block."""

    @property
    def waits_until(self) -> float:
        """On the loop's clock."""

    def on_loaded(self, resident: Resident, was_loaded: bool) -> None:
        """It can be called. `was_loaded`: before this was asked for."""

    def on_not_loaded(self, code: str, message: str) -> None:
        """It cannot: the host's reason, as `links.hosts.LoadModel` lists them, or `HostUnavailable`."""


@dataclass(slots=True)
class Loading:
    """A load that this gateway has asked for."""

    waiters: list[Waiter] = field(default_factory=list)


class Book:
    """The models of one target by the names that callers give them. `waiting` calls are not the target's work yet."""

    __slots__ = ("_authorization", "_residents", "leaving", "loading", "waiting")

    def __init__(self, token: str) -> None:
        self._authorization: Final = f"authorization: Bearer {token}\r\n" if token else ""
        self._residents: dict[str, Resident] = {}
        self.loading: dict[str, Loading] = {}
        self.leaving: dict[str, asyncio.Event] = {}  # until the host has unloaded them
        self.waiting = 0

    def find(self, model: str) -> Resident | None:
        return self._residents.get(model)

    def add(self, model: str, name: str, *, runs_script: bool = False) -> Resident:
        line = f"POST /models/{name}/invoke HTTP/1.1\r\nhost: localhost\r\n{self._authorization}"
        if len(self._residents) >= _MOST_KNOWN:
            del self._residents[next(iter(self._residents))]  # it is found out again when it is called
        resident = self._residents[model] = Resident(name, line.encode(), runs_script=runs_script)
        return resident

    def forget(self, model: str, resident: Resident) -> None:
        """It is not there any more; what was learnt since stays."""
        if self._residents.get(model) is resident:
            del self._residents[model]

    def __len__(self) -> int:
        return len(self._residents)


class Placed(Protocol):
    """A target."""

    outstanding: int
    book: Book | None

    @property
    def mark(self) -> str: ...


_T = TypeVar("_T", bound=Placed)


class Places(Generic[_T]):
    """A fleet's targets in the order in which each model prefers them."""

    __slots__ = ("_ranked", "_targets")

    def __init__(self, targets: Sequence[_T]) -> None:
        self._targets = targets
        self._ranked: dict[str, list[_T]] = {}

    def choose(self, model: str, allowed: Collection[_T]) -> _T | None:
        """The one of `allowed` for a call of the model; None when there is none."""
        there = [target for target in self._order(model) if target in allowed]
        if len(there) <= 1:
            return there[0] if there else None
        loads = [_load(target) for target in there]
        limit = max(BUSY, _TOLERATED * sum(loads) / len(loads))
        return next(target for target, load in zip(there, loads, strict=True) if load <= limit)

    def _order(self, model: str) -> Sequence[_T]:
        if len(self._targets) == 1:
            return self._targets
        found = self._ranked.get(model)
        if found is None:
            if len(self._ranked) >= _MOST_KNOWN:
                self._ranked.clear()
            found = self._ranked[model] = sticky.ranked(model, [(each, each.mark) for each in self._targets])
        return found


def _load(target: Placed) -> int:
    """Calls that the target works on: those that wait for a model do not keep it busy."""
    return target.outstanding - (target.book.waiting if target.book is not None else 0)
