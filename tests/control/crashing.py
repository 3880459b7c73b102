"""Control that is killed at any of its calls: what it calls is wrapped, and one of the calls ends it.

The crash points are not listed anywhere: a run is repeated with the crash one call later, until it gets through.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clary.store import Store, Transaction

OUTSIDE_CALLS = {"start", "inspect", "stop", "remove", "list", "publish", "withdraw", "drain"}


class Crash(BaseException):
    """The process is gone: nobody catches this."""


class CrashAt:
    """Wraps what control calls outside; the crash comes after the `at`-th call or commit took effect."""

    def __init__(self, at: int = 0) -> None:
        self.arm(at)

    def arm(self, at: int) -> None:
        """Counts from now on."""
        self.at, self.count = at, 0

    def __call__(self, thing: Any) -> Any:
        return _CrashingStore(thing, self) if isinstance(thing, Store) else _Crashing(thing, self)

    def passed(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash


class _Crashing:
    """A thing whose outside calls count, or a call itself."""

    def __init__(self, thing: Any, point: CrashAt) -> None:
        self._thing = thing
        self._point = point

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        return _Crashing(found, self._point) if name in OUTSIDE_CALLS else found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._thing(*args, **kwargs)
        self._point.passed()
        return result


class _CrashingStore:
    def __init__(self, store: Store, point: CrashAt) -> None:
        self._store = store
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator[Transaction]:
        with self._store.write(on_full_disk=on_full_disk) as tx:
            yield tx
        self._point.passed()
