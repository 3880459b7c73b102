"""The models of one instance: fetched, unpacked, loaded and evicted.

A model is loaded once, however many ask for it meanwhile; each load has a thread of its own, so that one that hangs
holds up nobody else. What the container is told of one model is told in order, under that model's lock: nothing can
be loaded while it is being unloaded.

The bounds: how many may be loaded (`models_per_instance`), how much disk they take (`models_disk_bytes`), and memory,
which only the container can judge: it answers 507, and then the model used least recently goes.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clary.blobs.base import BlobError, BlobReader, NoSuchBucket, NoSuchKey, OpenObject, parse_uri
from clary.domain.clock import Clock
from clary.domain.instances import InstanceId, ModelSource
from clary.host.archives import OUT_OF_SPACE
from clary.host.models_book import Book, Entry, State
from clary.host.models_client import Answer, ModelsClient, Said, TooSlow, Unreachable, shown
from clary.host.models_files import ModelFiles, Note
from clary.host.models_room import Room
from clary.host.unpacking import Unpackable
from clary.links.hosts import HostError, LoadedModel, ModelStatus, ModelUse

LOAD_TIMEOUT_S = 360.0
"""SageMaker's: so long a load goes on, whoever still waits for it."""

IN_BACKGROUND = 4
"""Loads at once for which nobody waits: of pinned models, and of those whose object may be another."""

log = logging.getLogger(__name__)


class Meter(Protocol):
    """Counts how long something took, as SageMaker names it."""

    def __call__(self, metric: str, seconds: float) -> None: ...


class Blamed(Protocol):
    """Which contents have ended the instances that loaded them."""

    def why(self, uri: str, etag: str) -> str:
        """The sentence for whoever asks for it again; empty for the innocent."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`loaded` 0: as many as memory holds. `refresh_s` 0: a replaced object is seen at the next load only."""

    loaded: int
    disk_bytes: int
    refresh_s: float
    fetch_timeout_s: float


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
        self._blobs = blobs
        self._clock = clock
        self._bounds = bounds
        self._base = base  # where the container finds the models
        self._is_built_in = is_built_in
        self._meter = meter
        self._blamed = blamed
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._book = Book(source.prefix)
        self._room = Room(
            self._book,
            self._changed,
            self,
            clock,
            places=bounds.loaded,
            disk_bytes=bounds.disk_bytes,
        )
        self._broken_off: set[str] = set()
        self._later: deque[tuple[Entry, State | None]] = deque()
        self._helpers = 0

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
            task = None if is_believed else entry.task or self._begin(entry)
        if task is None and self._is_there(entry):
            with self._lock:
                self._book.used(entry, 0, self._now())
            return LoadedModel(entry.name, was_loaded=True, runs_script=entry.runs_script)
        if task is None:
            with self._lock:
                entry = self._book.entry(target_model)  # meanwhile it may have been forgotten
                task = entry.task or self._begin(entry)
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
                self._begin_later(entry, "loaded")

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
                self.drop(entry, reason)

    def pin(self, target_model: str, is_pinned: bool) -> None:
        """Raises `HostError` for a target that is not there. A pinned model is loaded in the background."""
        checked(target_model)
        if is_pinned:
            with self._opened(target_model):
                pass
        with self._lock:
            if not is_pinned and not self._book.has(target_model):
                return
            entry = self._book.entry(target_model)
            entry.is_pinned = is_pinned
            if entry.size_bytes:
                self._files.note(_note(entry))
            if is_pinned and entry.state != "loaded" and entry.task is None:
                self._begin_later(entry, None)

    def statuses(self) -> list[ModelStatus]:
        with self._lock:
            return [entry.status(self.instance_id) for entry in self._book]

    def loaded_count(self) -> int:
        with self._lock:
            return self._book.count("loaded")

    def suspects(self) -> list[tuple[str, str]]:
        """Whatever was being loaded when the instance ended: address and etag of each."""
        with self._lock:
            names = self._broken_off | {each.name for each in self._book.in_state("loading")}
            found = [entry for name in names if (entry := self._book.named(name)) is not None]
            return sorted((self._uri(entry), entry.etag) for entry in found)

    # What its room decides

    def tell_unload(self, entry: Entry, reason: str) -> None:
        """Under its lock, and it counts as unloaded already."""
        with self._lock:
            entry.reason, entry.loaded_at, entry.memory_bytes = reason, None, 0
        began = self._clock.monotonic()
        try:
            answer = self._client.unload(entry.name)
        except (Unreachable, TooSlow) as error:
            log.warning(
                "a model could not be unloaded", extra={"model": entry.target_model, "error": str(error)}
            )
            return
        if answer.status not in (200, 404):
            log.warning("a container did not unload a model", extra={"answer": shown(answer)})
        self._meter("ModelUnloadingTime", self._clock.monotonic() - began)

    def drop(self, entry: Entry, reason: str) -> None:
        """From the disk; under its lock."""
        with self._lock:
            entry.etag, entry.reason = "", reason or entry.reason
            self._book.resize(entry, 0)
            self._room.move(entry, "evicted")
        self._files.remove(entry.name)

    def take_stock(self) -> None:
        """Of what the container holds although it did not say so in time, or to a host before this one."""
        try:
            loaded = dict(self._client.loaded())
        except (Unreachable, TooSlow):
            return
        with self._lock:
            for name, said in loaded.items():
                entry = self._book.named(name)
                if (
                    entry is not None
                    and entry.state == "on disk"
                    and entry.task is None
                    and not entry.lock.locked()
                ):
                    entry.memory_bytes, entry.runs_script = said.memory_bytes, said.runs_script
                    entry.loaded_at = self._now()
                    self._room.move(entry, "loaded")

    # One load

    def _begin(self, entry: Entry) -> "Future[LoadedModel]":
        """Under the lock. Raises `HostError`."""
        task: Future[LoadedModel] = Future()
        self._spawn(f"load-{entry.name[:8]}", self._run, entry, task)
        entry.task = task  # the thread has no turn before the lock is free
        return task

    def _begin_later(self, entry: Entry, wanted: State | None) -> None:
        """Under the lock: a few at once, however many there are. Whoever calls one meanwhile does not wait for the
        others. `wanted`: only if it is in that state still."""
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
        with self._lock:
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

    def _bring(self, entry: Entry) -> None:
        """From wherever it is to loaded, under its lock."""
        try:
            opened = self._opened(entry.target_model)
        except HostError as error:
            if error.code == "ModelMissing" and entry.state != "loaded" and entry.size_bytes:
                self.drop(entry, "its object is gone")
            if error.code == "ModelMissing" or not entry.size_bytes:
                raise
            opened = None  # the bucket cannot be read now: what lies here does
        is_fresh = False
        if opened is not None:
            with opened:
                is_fresh = opened.info.etag != entry.etag or not self._files.has(entry.name)
                if is_fresh:
                    self._fetch(entry, opened)
        if entry.state != "loaded":
            self._load(entry, is_fresh=is_fresh)

    def _fetch(self, entry: Entry, opened: OpenObject) -> None:
        if why := self._blamed.why(self._uri(entry), opened.info.etag):
            raise HostError("ModelInvalid", why)
        was = entry.state
        began = self._clock.monotonic()
        if was != "loaded":
            self._room.move(entry, "downloading")
        try:
            part, size_bytes = self._files.fetch(opened.path, self._bounds.fetch_timeout_s)
        except Unpackable as error:
            if was != "loaded":
                self.drop(entry, "")
            code = "NoRoom" if error.code == "DiskFull" else "ModelInvalid"
            raise HostError(code, f"{self._uri(entry)} could not be unpacked: {error}") from error
        try:
            self._room.take_disk(entry, max(1, size_bytes))
            if was == "loaded":
                self._room.unload(entry, "downloading", "its object was replaced")
            self._place(entry, part, opened.info.etag)
        except BaseException:
            self._files.drop(part)
            raise
        self._room.move(entry, "on disk")
        self._meter("ModelDownloadingTime", self._clock.monotonic() - began)

    def _place(self, entry: Entry, part: Path, etag: str) -> None:
        try:
            self._files.put_away(entry.name)
            with self._lock:  # it may be pinned at the same time
                entry.etag, entry.fetched_at = etag, self._now()
                self._files.note(_note(entry))
            self._files.place(part, entry.name)
        except BaseException:
            self.drop(entry, "")
            raise

    def _load(self, entry: Entry, *, is_fresh: bool) -> None:
        self._refuse_unusable(entry)
        self._room.take_place(entry)
        began = self._clock.monotonic()
        said = self._tell_load(entry, is_fresh=is_fresh)
        with self._lock:
            self._broken_off.discard(entry.name)
            entry.memory_bytes, entry.runs_script = said.memory_bytes, said.runs_script
            entry.reason, entry.loaded_at = "", self._now()
            entry.loads += 1
            self._room.move(entry, "loaded")
            self._book.used(entry, 0, entry.loaded_at)
        self._meter("ModelLoadingTime", self._clock.monotonic() - began)

    def _tell_load(self, entry: Entry, *, is_fresh: bool) -> Said:
        """Until the container has it. Raises `HostError`."""
        answer = self._room.fit(entry, lambda: self._ask_to_load(entry))
        if answer.status == 409 and is_fresh:  # what it holds is of an older object
            with suppress(Unreachable, TooSlow):
                self._client.unload(entry.name)
            answer = self._room.fit(entry, lambda: self._ask_to_load(entry))
        if answer.status == 409:
            with suppress(Unreachable, TooSlow):
                return self._client.look(entry.name).said
            return Said()
        if answer.status == 200:
            return answer.said
        self.drop(entry, "")
        raise HostError("ModelInvalid", shown(answer))

    def _ask_to_load(self, entry: Entry) -> Answer:
        try:
            return self._client.load(entry.name, f"{self._base}/{entry.name}/model", LOAD_TIMEOUT_S)
        except TooSlow as error:
            raise HostError(
                "ModelTimeout", f"the container did not load {entry.target_model}: {error}"
            ) from error
        except Unreachable as error:
            with self._lock:
                self._broken_off.add(entry.name)
            raise HostError(
                "InstanceEnded", f"the instance ended while it loaded a model: {error}"
            ) from error

    def _refuse_unusable(self, entry: Entry) -> None:
        """What would need an environment of the model's own: an instance has one, made before any model came."""
        wants = self._files.content(entry.name) / "code" / "requirements.txt"
        if self._is_built_in and wants.is_file():
            self.drop(entry, "")
            raise HostError(
                "ModelInvalid",
                f"{entry.target_model} has a code/requirements.txt, and the models of a multi-model endpoint share one "
                "environment: put it into the container's source directory (SAGEMAKER_SUBMIT_DIRECTORY) instead, or "
                "give the model an endpoint of its own",
            )

    # Within

    def _is_there(self, entry: Entry) -> bool:
        """Whoever asks for a loaded model has not known it, or has been told by the container that it is gone."""
        with entry.lock:
            if entry.state != "loaded":
                return False
            try:
                answer = self._client.look(entry.name)
            except (Unreachable, TooSlow):
                return True
            if answer.status != 404:
                return True
            with self._lock:
                self._room.move(entry, "on disk")
                entry.reason, entry.loaded_at = "the container did not have it any more", None
            return False

    def _opened(self, target_model: str) -> OpenObject:
        uri = self._source.prefix + target_model
        location = parse_uri(uri)
        if location is None:
            raise HostError("ModelMissing", f"{uri} is no s3:// address")
        try:
            return self._blobs.open(location.bucket, location.key)
        except (NoSuchBucket, NoSuchKey) as error:
            raise HostError("ModelMissing", f"there is nothing at {uri}") from error
        except BlobError as error:
            raise HostError("ModelInvalid", f"{uri} could not be read: {error}") from error

    def _uri(self, entry: Entry) -> str:
        return self._source.prefix + entry.target_model

    def _now(self) -> float:
        return self._clock.now().timestamp()


def checked(target_model: str) -> str:
    """Raises `HostError` for what cannot be a key below the prefix."""
    parts = target_model.split("/")
    if not target_model or target_model.startswith("/") or ".." in parts or "\0" in target_model:
        raise HostError("ModelMissing", f"{target_model!r} is no key below the model's prefix")
    return target_model


def _note(entry: Entry) -> Note:
    return Note(
        entry.name,
        entry.target_model,
        entry.etag,
        entry.size_bytes,
        entry.fetched_at,
        entry.is_pinned,
    )
