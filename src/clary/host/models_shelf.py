"""The models of one instance, as gateways and control ask for them: which there are, and what becomes of each.

A model is loaded once, however many ask for it meanwhile (`models_tasks`); what is done with one is `models_loading`'s.

The bounds: how many may be loaded (`models_per_instance`), how much disk they take (`models_disk_bytes`), and memory,
which only the container can judge: it answers 507, and then the model used least recently goes (`models_room`).
"""

import threading
from concurrent.futures import TimeoutError as FutureTimeout

from clary.blobs.base import BlobReader
from clary.domain.clock import Clock
from clary.domain.instances import InstanceId, ModelSource
from clary.host.models_book import Book, Entry
from clary.host.models_client import ModelsClient, TooSlow, Unreachable
from clary.host.models_files import ModelFiles
from clary.host.models_loading import Bounds, Loading, Meter, note_of
from clary.host.models_objects import Blamed, Objects, checked
from clary.host.models_tasks import Tasks
from clary.links.hosts import HostError, LoadedModel, ModelStatus, ModelUse


class Shelf:
    """See above. Thread-safe."""

    def __init__(
        self,
        instance_id: InstanceId,
        source: ModelSource,
        *,
        files: ModelFiles,
        client: ModelsClient,
        blobs: BlobReader,
        clock: Clock,
        bounds: Bounds,
        base: str,
        is_built_in: bool,
        meter: Meter,
        blamed: Blamed,
    ) -> None:
        self.instance_id = instance_id
        self._source = source
        self._files = files
        self._client = client
        self._clock = clock
        self._bounds = bounds
        self._lock = threading.Condition(threading.RLock())
        self._book = Book(source.prefix)
        self._objects = Objects(source.prefix, blobs, blamed)
        self._loading = Loading(
            self._book,
            self._lock,
            objects=self._objects,
            files=files,
            client=client,
            clock=clock,
            bounds=bounds,
            base=base,
            is_built_in=is_built_in,
            meter=meter,
        )
        self._room = self._loading.room
        self._tasks = Tasks(self._book, self._room, self._lock, self._loading.bring)

    def recover(self) -> None:
        """What an earlier host has left: the disk says what there is, the container what of it is loaded."""
        try:
            loaded = dict(self._client.loaded())
        except (Unreachable, TooSlow):
            loaded = {}
        now = self._now()
        with self._lock:
            for note in self._files.recover():
                is_loaded = note.name in loaded
                entry = Entry(note.name, note.target_model, "loaded" if is_loaded else "on disk")
                entry.etag, entry.size_bytes, entry.is_pinned = note.etag, note.size_bytes, note.is_pinned
                entry.fetched_at, entry.last_used_at = note.fetched_at, note.fetched_at
                if is_loaded:
                    entry.memory_bytes = loaded[note.name].memory_bytes
                    entry.runs_script = loaded[note.name].runs_script
                entry.loaded_at = now if is_loaded else None
                self._book.add(entry)

    def close(self) -> None:
        self._client.close()

    def load(self, target_model: str, timeout_s: float) -> LoadedModel:
        """Raises `HostError`."""
        with self._lock:
            entry = self._book.entry(checked(target_model))
            is_believed = entry.task is None and entry.state == "loaded"
            task = None if is_believed else entry.task or self._tasks.begin(entry)
        if task is None and self._loading.is_there(entry):
            with self._lock:
                self._book.used(entry, 0, self._now())
            return LoadedModel(entry.name, was_loaded=True, runs_script=entry.runs_script)
        if task is None:
            with self._lock:
                entry = self._book.entry(target_model)  # meanwhile it may have been forgotten
                task = entry.task or self._tasks.begin(entry)
        try:
            return task.result(timeout_s)
        except FutureTimeout:
            text = f"{target_model} is not loaded after {timeout_s:g} s; it is still being loaded"
            raise HostError("ModelTimeout", text) from None

    def use(self, use: ModelUse) -> None:
        with self._lock:
            entry = self._book.named(use.name)
            if entry is None:
                return
            self._book.used(entry, use.calls, use.last_at)
            refresh_s, now = self._bounds.refresh_s, self._now()
            is_due = refresh_s > 0 and now - max(entry.looked_at, entry.fetched_at) >= refresh_s
            if is_due and entry.state == "loaded" and entry.task is None:
                entry.looked_at = now
                self._tasks.begin_later(entry, "loaded")

    def unload(self, name: str) -> None:
        """By a gateway's word: the model is not to be kept, or the container had no memory for a call."""
        with self._lock:
            entry = self._book.named(name)
        if entry is None or (entry.is_pinned and not self._source.is_cached):
            return
        with entry.lock:
            with self._lock:
                if entry.state != "loaded" or entry.task is not None:
                    return
            reason = (
                "unloaded: a gateway asked" if self._source.is_cached else "not cached (ModelCacheSetting)"
            )
            self._room.unload(entry, "on disk", reason)
            if not self._source.is_cached:
                self._loading.drop(entry, reason)

    def pin(self, target_model: str, is_pinned: bool) -> None:
        """Raises `HostError` for a target that is not there. A pinned model is loaded in the background."""
        checked(target_model)
        if is_pinned:
            with self._objects.open(target_model):
                pass
        with self._lock:
            if not is_pinned and not self._book.has(target_model):
                return
            entry = self._book.entry(target_model)
            entry.is_pinned = is_pinned
            if entry.size_bytes:
                self._files.note(note_of(entry))
            if is_pinned and entry.state != "loaded" and entry.task is None:
                self._tasks.begin_later(entry, None)

    def statuses(self) -> list[ModelStatus]:
        with self._lock:
            return [entry.status(self.instance_id) for entry in self._book]

    def loaded_count(self) -> int:
        with self._lock:
            return self._book.count("loaded")

    def suspects(self) -> list[tuple[str, str]]:
        """Whatever was being loaded when the instance ended: address and etag of each."""
        return self._loading.suspects()

    def _now(self) -> float:
        return self._clock.now().timestamp()
