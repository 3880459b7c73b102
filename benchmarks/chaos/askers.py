"""Threads that ask all the while: they begin with `with`, and its end waits for the answer that each still expects."""

import threading
from collections.abc import Callable, Iterable
from typing import Self

ENDS_WITHIN_S = 90.0
"""Longer than any answer may take."""


class Askers:
    """Each of `asks` runs in a thread of its own and returns soon after `is_over` is set."""

    def __init__(self, asks: Iterable[Callable[[], None]]) -> None:
        self.is_over = threading.Event()
        self._threads = [threading.Thread(target=ask, daemon=True) for ask in asks]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self._threads:
            thread.join(ENDS_WITHIN_S)
