"""What the host knows of the models of one instance, and which of them goes when room is needed. No I/O in here.

The one used least recently goes first. Pinned ones never go, nor those that something is being done with.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, get_args

from clary.domain.instances import InstanceId
from clary.links.hosts import LoadedModel, ModelStatus

State = Literal["absent", "downloading", "loading", "loaded", "on disk", "failed", "evicted"]
MOST_REMEMBERED = 10_000
"""Models that are neither loaded nor on the disk, of which only their story is left."""


@dataclass(eq=False)
class Entry:
    """One model. Changed under the lock of its shelf, its state by the book alone; `lock` is held while the container
    is told of it. `size_bytes` 0: it is not on the disk."""

    name: str
    target_model: str
    state: State = "absent"
    etag: str = ""
    size_bytes: int = 0
    memory_bytes: int = 0
    fetched_at: float = 0.0
    loaded_at: float | None = None
    last_used_at: float | None = None
    calls: int = 0
    loads: int = 0
    is_pinned: bool = False
    runs_script: bool = False  # as far as the container says
    reason: str = ""
    looked_at: float = 0.0  # when its object was last compared, for the refresh
    task: "Future[LoadedModel] | None" = None  # under way
    lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self, instance_id: InstanceId) -> ModelStatus:
        return ModelStatus(
            instance_id=instance_id,
            target_model=self.target_model,
            name=self.name,
            state=self.state,
            size_bytes=self.size_bytes,
            memory_bytes=self.memory_bytes,
            loaded_at=self.loaded_at,
            last_used_at=self.last_used_at,
            calls=self.calls,
            loads=self.loads,
            is_pinned=self.is_pinned,
            reason=self.reason,
        )


class Book:
    """The models of one instance. Not thread-safe: its shelf has the lock. However many there are, finding the next to
    go costs the same: each state's models stand in the order of their last use."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._entries: dict[str, Entry] = {}
        self._by_state: dict[State, OrderedDict[str, Entry]] = {
            state: OrderedDict() for state in get_args(State)
        }
        self.disk_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, target_model: str) -> Entry:
        name = name_of(self._prefix, target_model)
        found = self._entries.get(name)
        if found is None:
            self._forget_some()
            found = Entry(name, target_model)
            self.add(found)
        return found

    def has(self, target_model: str) -> bool:
        return name_of(self._prefix, target_model) in self._entries

    def named(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def add(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        self._by_state[entry.state][entry.name] = entry
        self.disk_bytes += entry.size_bytes

    def forget(self, entry: Entry) -> None:
        if self._entries.pop(entry.name, None) is not None:
            del self._by_state[entry.state][entry.name]
            self.disk_bytes -= entry.size_bytes

    def move(self, entry: Entry, state: State) -> None:
        del self._by_state[entry.state][entry.name]
        entry.state = state
        self._by_state[state][entry.name] = entry

    def resize(self, entry: Entry, size_bytes: int) -> None:
        self.disk_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes

    def used(self, entry: Entry, calls: int, at: float) -> None:
        entry.calls += calls
        if at >= (entry.last_used_at or 0.0):
            entry.last_used_at = at
            self._by_state[entry.state].move_to_end(entry.name)

    def count(self, *states: State) -> int:
        return sum(len(self._by_state[state]) for state in states)

    def in_state(self, state: State) -> list[Entry]:
        return list(self._by_state[state].values())

    def take_oldest(self, state: State) -> Entry | None:
        """The one to go, with its lock taken; None when none may."""
        for entry in self._by_state[state].values():
            if not entry.is_pinned and entry.task is None and entry.lock.acquire(blocking=False):
                return entry
        return None

    def may_lose_one(self) -> bool:
        """Whether one of the loaded may go, be it that something is being done with it just now."""
        return any(not each.is_pinned for each in self._by_state["loaded"].values())

    def will_lose_bytes(self, but: Collection[str]) -> bool:
        """Whether bytes on the disk may come free, of others than those."""
        return any(
            each.size_bytes and not each.is_pinned and each.name not in but for each in self._entries.values()
        )

    def _forget_some(self) -> None:
        if self.count("failed", "evicted") < MOST_REMEMBERED:
            return
        states: tuple[State, ...] = ("failed", "evicted")
        for state in states:
            gone = [
                each for each in self._by_state[state].values() if each.task is None and not each.is_pinned
            ]
            for entry in gone[: MOST_REMEMBERED // 10]:
                self.forget(entry)


def name_of(prefix: str, target_model: str) -> str:
    """What the container knows it by: the same in every instance, and nothing that a path could be made of."""
    text = f"{prefix}\0{target_model}"
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
