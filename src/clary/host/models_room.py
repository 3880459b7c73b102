"""Room in one instance: who goes so that another model may come.

Each decision is made in one look at the book: of two looks, the second may find that others have moved on meanwhile,
and take "nothing to wait for now" for "there is no room". A place passes from the model that goes to the one that
comes, so the container never holds more than it may.

Nothing is refused for a state that passes by itself: whoever finds no room waits as long as somebody is on the way or
on the way out. Who waits is chosen such that no two wait for each other: for places one waits for those that load, for
memory those that load wait in one row, for disk one waits for those that do not.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from clary.domain.clock import Clock
from clary.host.models_book import Book, Entry, State
from clary.host.models_client import Answer, shown
from clary.links.hosts import HostError

LONGEST_S = 360.0
"""So long somebody waits for memory or disk that others may give back."""

POLL_S = 1.0
BUSY_S = 0.05
"""A model that may go is held by somebody for a moment, who tells nobody when it is free."""


class Keeper(Protocol):
    """Does what the room decides. Whoever calls holds the lock of the entry."""

    def tell_unload(self, entry: Entry, reason: str) -> None:
        """The container; it counts as unloaded already. Failures are logged."""

    def drop(self, entry: Entry, reason: str) -> None:
        """From the disk."""

    def take_stock(self) -> None:
        """Puts into the book what the container holds besides."""


class Room:
    """Thread-safe; `changed` is of the lock that guards the book. `places` and `disk_bytes` 0: no bound."""

    def __init__(
        self,
        book: Book,
        changed: threading.Condition,
        keeper: Keeper,
        clock: Clock,
        *,
        places: int,
        disk_bytes: int,
    ) -> None:
        self._book = book
        self._changed = changed
        self._keeper = keeper
        self._clock = clock
        self._places = places
        self._disk_bytes = disk_bytes
        self._squeeze = threading.Lock()
        self._squeezed = 0  # of the loading: they have been told that there is no memory
        self._leaving = 0  # being unloaded, and nobody has their place yet
        self._ended = 0  # loads and unloads: there may be memory since
        self._wanting_disk: set[str] = set()

    def move(self, entry: Entry, state: State) -> None:
        with self._changed:
            self._ended += entry.state == "loading"
            self._book.move(entry, state)
            self._changed.notify_all()

    def unload(self, entry: Entry, state: State, reason: str) -> None:
        """A loaded one, under its lock."""
        with self._changed:
            self._leave(entry, state)
        self._see_out(entry, reason)

    def take_place(self, entry: Entry) -> None:
        """Among those that may be loaded. Raises `HostError` where all of them are pinned."""
        while True:
            with self._changed:
                if not self._places or self._occupied() < self._places:
                    self.move(entry, "loading")
                    return
                victim = self._book.take_oldest("loaded")
                if victim is not None:
                    self.move(victim, "on disk")
                    self.move(entry, "loading")
                elif not self._await_others(self._book.count("loading")):
                    text = f"{self._places} models may be loaded at once in an instance, and all are pinned"
                    raise HostError("NoRoom", text)
            if victim is not None:
                self._tell(victim, f"the limit of {self._places} models: {entry.target_model} needed a place")
                return

    def fit(self, entry: Entry, ask: Callable[[], Answer]) -> Answer:
        """Asks the container to load it until memory is no reason not to. Raises `HostError` where nothing may go."""
        reason = f"memory: {entry.target_model} needed room"
        answer, ended = self._asked(ask)
        while answer.status == 507 and self._evict_one(reason):
            answer, ended = self._asked(ask)
        if answer.status == 507:
            answer = self._fit_alone(entry, ask, answer, ended)
        return answer

    def take_disk(self, entry: Entry, size_bytes: int) -> None:
        """The bytes are its own then. Raises `HostError` where they cannot be had."""
        if self._disk_bytes and size_bytes > self._disk_bytes:
            text = f"{entry.target_model} has {size_bytes} bytes, and the models of an instance may take"
            raise HostError("NoRoom", f"{text} {self._disk_bytes} (the setting models_disk_bytes)")
        try:
            while (victim := self._disk_or_victim(entry, size_bytes)) is not None:
                self._see_off(victim, f"disk: {entry.target_model} needed room")
        finally:
            with self._changed:
                self._wanting_disk.discard(entry.name)

    # Places

    def _occupied(self) -> int:
        return self._book.count("loaded", "loading") + self._leaving

    def _await_others(self, coming: int) -> bool:
        """Under the lock: until something has changed. False when nobody comes or goes, and nobody may go."""
        if coming > 0 or self._leaving:
            self._changed.wait(POLL_S)
        elif self._book.may_lose_one():
            self._changed.wait(BUSY_S)
        else:
            return False
        return True

    # Memory

    def _asked(self, ask: Callable[[], Answer]) -> tuple[Answer, int]:
        with self._changed:
            ended = self._ended
        return ask(), ended

    def _evict_one(self, reason: str) -> bool:
        """The one used least recently; False when none may go now."""
        with self._changed:
            victim = self._book.take_oldest("loaded")
            if victim is None:
                return False
            self._leave(victim, "on disk")
        try:
            self._see_out(victim, reason)
        finally:
            victim.lock.release()
        return True

    def _fit_alone(self, entry: Entry, ask: Callable[[], Answer], answer: Answer, ended: int) -> Answer:
        """Where nothing may go, but others that are on their way have taken the room: one after another from now on,
        or two of them would take it from each other for ever."""
        until = self._clock.monotonic() + LONGEST_S
        self._count_squeezed(1)
        try:
            with self._squeeze:
                self._keeper.take_stock()
                while answer.status == 507:
                    if not self._make_memory(entry, ended):
                        text = f"{entry.target_model} does not fit into the instance: {shown(answer)}"
                        raise HostError("NoRoom", text)
                    if self._clock.monotonic() > until:
                        text = f"{entry.target_model} found no room within {LONGEST_S:g} s: {shown(answer)}"
                        raise HostError("NoRoom", text)
                    answer, ended = self._asked(ask)
        finally:
            self._count_squeezed(-1)
        return answer

    def _make_memory(self, entry: Entry, ended: int) -> bool:
        """There may be more than when so many had ended; False when there will not."""
        if self._evict_one(f"memory: {entry.target_model} needed room"):
            return True
        with self._changed:  # those that want to be next are not on their way
            return self._ended != ended or self._await_others(self._book.count("loading") - self._squeezed)

    def _count_squeezed(self, more: int) -> None:
        with self._changed:
            self._squeezed += more
            self._changed.notify_all()

    # Disk

    def _disk_or_victim(self, entry: Entry, size_bytes: int) -> Entry | None:
        """The one that has to go, with its lock taken; None when the bytes have been taken."""
        until = self._clock.monotonic() + LONGEST_S
        while True:
            with self._changed:
                if not self._disk_bytes or self._disk_after(entry, size_bytes) <= self._disk_bytes:
                    self._book.resize(entry, size_bytes)
                    return None
                self._wanting_disk.add(entry.name)
                victim = self._book.take_oldest("on disk") or self._book.take_oldest("loaded")
                if victim is not None:
                    return victim
                if not self._await_disk(entry) or self._clock.monotonic() > until:
                    text = f"the {self._disk_bytes} bytes for models (models_disk_bytes) are all in use"
                    raise HostError("NoRoom", text)

    def _disk_after(self, entry: Entry, size_bytes: int) -> int:
        return self._book.disk_bytes - entry.size_bytes + size_bytes

    def _await_disk(self, entry: Entry) -> bool:
        """Under the lock. One that serves meanwhile does not wait: others may be waiting for it to go."""
        if entry.state == "loaded" or not self._book.will_lose_bytes(self._wanting_disk):
            return False
        self._changed.wait(BUSY_S)
        return True

    def _see_off(self, victim: Entry, reason: str) -> None:
        try:
            if victim.state == "loaded":
                self.unload(victim, "on disk", reason)
            self._keeper.drop(victim, reason)
        finally:
            victim.lock.release()

    # Within

    def _leave(self, entry: Entry, state: State) -> None:
        """Under the lock; `_see_out` follows."""
        self.move(entry, state)
        self._leaving += 1

    def _see_out(self, entry: Entry, reason: str) -> None:
        try:
            self._keeper.tell_unload(entry, reason)
        finally:
            with self._changed:
                self._leaving -= 1
                self._ended += 1
                self._changed.notify_all()

    def _tell(self, victim: Entry, reason: str) -> None:
        """Its place is another's already; its lock was taken."""
        try:
            self._keeper.tell_unload(victim, reason)
        finally:
            victim.lock.release()
            with self._changed:
                self._ended += 1
                self._changed.notify_all()
