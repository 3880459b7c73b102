"""The loads of one instance that are under way: one for a model however many ask for it, each in a thread of its own.

So one that hangs holds up nobody else. Those for which nobody waits are a few at a time, however many there are.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from clary.host.archives import OUT_OF_SPACE
from clary.host.models_book import Book, Entry, State
from clary.host.models_room import Room
from clary.links.hosts import HostError, LoadedModel

IN_BACKGROUND = 4
"""Loads at once for which nobody waits: of pinned models, and of those whose object may be another."""

log = logging.getLogger(__name__)


class Tasks:
    """`changed` is of the lock that guards the book; whoever begins something holds it."""

    def __init__(
        self, book: Book, room: Room, changed: threading.Condition, bring: Callable[[Entry], None]
    ) -> None:
        """`bring`: from wherever a model is to loaded, under its lock. Raises `HostError`, `OSError`."""
        self._book = book
        self._room = room
        self._changed = changed
        self._bring = bring
        self._later: deque[tuple[Entry, State | None]] = deque()
        self._helpers = 0

    def begin(self, entry: Entry) -> "Future[LoadedModel]":
        """Raises `HostError` where there is no thread for it."""
        task: Future[LoadedModel] = Future()
        self._spawn(f"load-{entry.name[:8]}", self._run, entry, task)
        entry.task = task  # the thread has no turn before the lock is free
        return task

    def begin_later(self, entry: Entry, wanted: State | None) -> None:
        """Whoever calls one meanwhile does not wait for the others. `wanted`: only if it is in that state still."""
        self._later.append((entry, wanted))
        if self._helpers < IN_BACKGROUND:
            self._spawn("models-later", self._help)
            self._helpers += 1

    def _spawn(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        try:
            threading.Thread(target=work, args=arguments, name=name, daemon=True).start()
        except RuntimeError as error:
            raise HostError("Busy", f"the host cannot do more at once ({error}): try again") from error

    def _help(self) -> None:
        while (found := self._next()) is not None:
            self._run(*found)

    def _next(self) -> "tuple[Entry, Future[LoadedModel]] | None":
        with self._changed:
            while self._later:
                entry, wanted = self._later.popleft()
                is_done = wanted is None and entry.state == "loaded"
                is_known = self._book.named(entry.name) is entry
                if is_known and entry.task is None and not is_done and wanted in (None, entry.state):
                    entry.task = Future()
                    return entry, entry.task
            self._helpers -= 1
            return None

    def _run(self, entry: Entry, task: "Future[LoadedModel]") -> None:
        try:
            with entry.lock:
                self._bring(entry)
        except HostError as error:
            self._fail(entry, task, error)
        except OSError as error:
            hint = ": free some space, then try again" if error.errno in OUT_OF_SPACE else ""
            self._fail(entry, task, HostError("NoRoom", f"the host's disk: {error}{hint}"))
        except Exception as error:
            log.exception("a model could not be loaded", extra={"model": entry.target_model})
            self._fail(entry, task, HostError("Internal", f"{type(error).__name__}: {error}"))
        else:
            with self._changed:  # it may go from now on
                entry.task = None
                self._changed.notify_all()
            task.set_result(LoadedModel(entry.name, was_loaded=False, runs_script=entry.runs_script))

    def _fail(self, entry: Entry, task: "Future[LoadedModel]", error: HostError) -> None:
        with self._changed:
            entry.task = None
            self._changed.notify_all()
            serves = entry.state == "loaded"
            if not serves:
                entry.reason = str(error)
                self._room.move(entry, "on disk" if entry.size_bytes else "failed")
                if error.code == "ModelMissing" and not entry.loads:
                    self._book.forget(entry)
        if serves:  # its successor cannot be had: it goes on
            log.warning(
                "a model could not be refreshed", extra={"model": entry.target_model, "error": str(error)}
            )
            task.set_result(LoadedModel(entry.name, was_loaded=True, runs_script=entry.runs_script))
        else:
            task.set_exception(error)
