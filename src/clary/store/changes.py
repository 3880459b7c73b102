"""Which resources were written, told to whoever waits in this process, after the commit that holds the change.

A waiter says since when it has been looking, so that no change between its look and its wait is lost: `mark`, look,
then `watch` with that mark.
"""

import threading
from collections.abc import Callable, Collection

Tell = Callable[[], None]


class Changes:
    """Safe for use by several threads. What is told must not block: it runs on the writer's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commits = 0
        self._watchers: dict[str, list[Tell]] = {}

    def mark(self) -> int:
        """Now, for `watch`."""
        with self._lock:
            return self._commits

    def watch(self, uid: str, since: int, tell: Tell) -> Callable[[], None]:
        """Has `tell` called, once, after the next commit that writes this resource.

        At once when anything was committed since `since`: it may have been this. Returns what forgets the wish.
        """
        with self._lock:
            is_late = self._commits != since
            if not is_late:
                self._watchers.setdefault(uid, []).append(tell)
        if is_late:
            tell()
        return lambda: self._forget(uid, tell)

    def note(self, uids: Collection[str] | None) -> None:
        """A commit wrote these resources; None: perhaps all."""
        with self._lock:
            self._commits += 1
            names = list(self._watchers) if uids is None else [uid for uid in uids if uid in self._watchers]
            told = [tell for uid in names for tell in self._watchers.pop(uid)]
        for tell in told:
            tell()

    def _forget(self, uid: str, tell: Tell) -> None:
        with self._lock:
            left = [other for other in self._watchers.get(uid, ()) if other is not tell]
            if left:
                self._watchers[uid] = left
            else:
                self._watchers.pop(uid, None)
