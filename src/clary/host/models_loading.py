"""What is done with one model of an instance: fetched and unpacked, told to the container, dropped again.

Whoever calls holds the entry's lock, so the container is told of one model in order: nothing can be loaded while it is
being unloaded. The lock of the shelf guards the book, and is held for moments only.
"""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clary.blobs.base import OpenObject
from clary.domain.clock import Clock
from clary.host.models_book import Book, Entry
from clary.host.models_client import Answer, ModelsClient, Said, TooSlow, Unreachable, shown
from clary.host.models_files import ModelFiles, Note
from clary.host.models_objects import Objects
from clary.host.models_room import Room
from clary.host.unpacking import Unpackable
from clary.links.hosts import HostError

LOAD_TIMEOUT_S = 360.0
"""SageMaker's: so long a load goes on, whoever still waits for it."""

log = logging.getLogger(__name__)


class Meter(Protocol):
    """Counts how long something took, as SageMaker names it."""

    def __call__(self, metric: str, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """`loaded` 0: as many as memory holds. `refresh_s` 0: a replaced object is seen at the next load only."""

    loaded: int
    disk_bytes: int
    refresh_s: float
    fetch_timeout_s: float


class Loading:
    """Of one instance. Thread-safe. `changed` is of the lock that guards the book; `room` says who goes."""

    def __init__(
        self,
        book: Book,
        changed: threading.Condition,
        *,
        objects: Objects,
        files: ModelFiles,
        client: ModelsClient,
        clock: Clock,
        bounds: Bounds,
        base: str,
        is_built_in: bool,
        meter: Meter,
    ) -> None:
        self.room = Room(book, changed, self, clock, places=bounds.loaded, disk_bytes=bounds.disk_bytes)
        self._book = book
        self._lock = changed
        self._objects = objects
        self._files = files
        self._client = client
        self._clock = clock
        self._bounds = bounds
        self._base = base  # where the container finds the models
        self._is_built_in = is_built_in
        self._meter = meter
        self._broken_off: set[str] = set()

    def bring(self, entry: Entry) -> None:
        """From wherever it is to loaded, under its lock."""
        try:
            opened = self._objects.open(entry.target_model)
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

    def is_there(self, entry: Entry) -> bool:
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
                self.room.move(entry, "on disk")
                entry.reason, entry.loaded_at = "the container did not have it any more", None
            return False

    def suspects(self) -> list[tuple[str, str]]:
        """Whatever was being loaded when the instance ended: address and etag of each."""
        with self._lock:
            names = self._broken_off | {each.name for each in self._book.in_state("loading")}
            found = [entry for name in names if (entry := self._book.named(name)) is not None]
            return sorted((self._objects.uri(entry.target_model), entry.etag) for entry in found)

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
            self.room.move(entry, "evicted")
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
                    self.room.move(entry, "loaded")

    # Within

    def _fetch(self, entry: Entry, opened: OpenObject) -> None:
        self._objects.refuse_blamed(entry.target_model, opened.info.etag)
        was = entry.state
        began = self._clock.monotonic()
        if was != "loaded":
            self.room.move(entry, "downloading")
        try:
            part, size_bytes = self._files.fetch(opened.path, self._bounds.fetch_timeout_s)
        except Unpackable as error:
            if was != "loaded":
                self.drop(entry, "")
            uri = self._objects.uri(entry.target_model)
            code = "NoRoom" if error.code == "DiskFull" else "ModelInvalid"
            raise HostError(code, f"{uri} could not be unpacked: {error}") from error
        try:
            self.room.take_disk(entry, max(1, size_bytes))
            if was == "loaded":
                self.room.unload(entry, "downloading", "its object was replaced")
            self._place(entry, part, opened.info.etag)
        except BaseException:
            self._files.drop(part)
            raise
        self.room.move(entry, "on disk")
        self._meter("ModelDownloadingTime", self._clock.monotonic() - began)

    def _place(self, entry: Entry, part: Path, etag: str) -> None:
        try:
            self._files.put_away(entry.name)
            with self._lock:  # it may be pinned at the same time
                entry.etag, entry.fetched_at = etag, self._now()
                self._files.note(note_of(entry))
            self._files.place(part, entry.name)
        except BaseException:
            self.drop(entry, "")
            raise

    def _load(self, entry: Entry, *, is_fresh: bool) -> None:
        self._refuse_unusable(entry)
        self.room.take_place(entry)
        began = self._clock.monotonic()
        said = self._tell_load(entry, is_fresh=is_fresh)
        with self._lock:
            self._broken_off.discard(entry.name)
            entry.memory_bytes, entry.runs_script = said.memory_bytes, said.runs_script
            entry.reason, entry.loaded_at = "", self._now()
            entry.loads += 1
            self.room.move(entry, "loaded")
            self._book.used(entry, 0, entry.loaded_at)
        self._meter("ModelLoadingTime", self._clock.monotonic() - began)

    def _tell_load(self, entry: Entry, *, is_fresh: bool) -> Said:
        """Until the container has it. Raises `HostError`."""
        answer = self.room.fit(entry, lambda: self._ask_to_load(entry))
        if answer.status == 409 and is_fresh:  # what it holds is of an older object
            with suppress(Unreachable, TooSlow):
                self._client.unload(entry.name)
            answer = self.room.fit(entry, lambda: self._ask_to_load(entry))
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

    def _now(self) -> float:
        return self._clock.now().timestamp()


def note_of(entry: Entry) -> Note:
    """What a host after this one is told of it."""
    return Note(
        entry.name,
        entry.target_model,
        entry.etag,
        entry.size_bytes,
        entry.fetched_at,
        entry.is_pinned,
    )
