"""The models of this machine's multi-model instances, as gateways and control ask for them over the link.

Everything is per instance (`models_shelf`), read from its directory and from its container when a host begins, so a
host may be killed at any moment: what is loaded goes on answering, and the gateways that know it do not ask.

A model whose load has ended its instance twice is not loaded again until its object is another: one bad file must
not take a fleet down, call after call.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TypeVar

from clary.blobs.base import BlobReader
from clary.domain.clock import Clock
from clary.domain.instances import InstanceId
from clary.host import archives
from clary.host.models_client import ModelsClient
from clary.host.models_files import ModelFiles
from clary.host.models_loading import Bounds
from clary.host.models_shelf import Shelf
from clary.host.records import Instance
from clary.host.unpacking import Unpacker
from clary.links import hosts
from clary.links import instances as files
from clary.settings import Settings

PER_INSTANCE = "CLARY_MODELS_PER_INSTANCE"
"""Of a container's environment: how many models its instances hold, in place of the setting."""

CONTAINER_PLACE = "/opt/ml/models"
_ENDS_UNTIL_REFUSED = 2
_MOST_BLAMED = 1000

log = logging.getLogger(__name__)

A = TypeVar("A")


class Models:
    """Thread-safe. `find` knows the instances, `meter` counts `(instance, metric, seconds)`."""

    def __init__(
        self,
        settings: Settings,
        find: Callable[[InstanceId], Instance | None],
        blobs: BlobReader,
        unpacker: Unpacker,
        clock: Clock,
        meter: Callable[[Instance, str, float], None],
    ) -> None:
        self._settings = settings
        self._find = find
        self._blobs = blobs
        self._unpacker = unpacker
        self._clock = clock
        self._meter = meter
        self._lock = threading.Lock()
        self._shelves: dict[InstanceId, Shelf] = {}
        self._opening: dict[InstanceId, threading.Lock] = {}
        self._blame = Blame()

    def handlers(self) -> dict[str, hosts.Handler]:
        return {
            "load_model": hosts.handler(hosts.LoadModel, self.load),
            "use_models": hosts.handler(hosts.UseModels, self.use),
            "unload_models": hosts.handler(hosts.UnloadModels, self.unload),
            "list_models": hosts.handler(hosts.ListModels, lambda a: self.list(a.ids)),
            "pin_models": hosts.handler(hosts.PinModels, self.pin),
        }

    def load(self, wanted: hosts.LoadModel) -> hosts.LoadedModel:
        return self._shelf(wanted.instance_id).load(wanted.target_model, wanted.timeout_s)

    def use(self, used: hosts.UseModels) -> None:
        for use in sorted(used.uses, key=lambda each: each.last_at):
            if (shelf := self._known(use.instance_id)) is not None:
                shelf.use(use)

    def unload(self, wanted: hosts.UnloadModels) -> None:
        shelf = self._shelf(wanted.instance_id)
        for name in wanted.names:
            shelf.unload(name)

    def list(self, ids: Collection[InstanceId]) -> list[hosts.ModelStatus]:
        self._open_all(ids)
        with self._lock:
            shelves = [shelf for id, shelf in self._shelves.items() if not ids or id in ids]
        return [status for shelf in shelves for status in shelf.statuses()]

    def pin(self, wanted: hosts.PinModels) -> None:
        for id in wanted.ids:
            for target_model in wanted.target_models:
                self._shelf(id).pin(target_model, wanted.is_pinned)

    def loaded_count(self, id: InstanceId) -> int:
        shelf = self._known(id)
        return 0 if shelf is None else shelf.loaded_count()

    def recover(self, instances: Iterable[Instance]) -> None:
        """What a host before this one left, in the background: an instance may take its time to answer."""
        ids = [instance.id for instance in instances if instance.spec.models is not None]
        if ids:
            threading.Thread(target=self._open_all, args=(ids,), name="models-recovery", daemon=True).start()

    def keep(self, is_known: Callable[[InstanceId], bool]) -> None:
        """Forgets the instances that are gone. Now and then."""
        with self._lock:
            ids = self._shelves.keys() | self._opening.keys()
        gone = [id for id in ids if not is_known(id)]
        with self._lock:
            shelves = [self._shelves.pop(id) for id in gone if id in self._shelves]
            for id in gone:
                self._opening.pop(id, None)
        for shelf in shelves:
            shelf.close()

    def was_at(self, id: InstanceId) -> str:
        """What an instance that has just ended by itself was loading, for the reason that people read."""
        shelf = self._known(id)
        suspects = [] if shelf is None else shelf.suspects()
        if not suspects:
            return ""
        if len(suspects) == 1:
            self._blame.add(*suspects[0])
        shown = ", ".join(uri for uri, _ in suspects[:3]) + (" …" if len(suspects) > 3 else "")
        return f"; it was loading {shown}"

    def _open_all(self, ids: Iterable[InstanceId]) -> None:
        """Of those that serve."""
        for id in ids:
            try:
                self._shelf(id)
            except (hosts.HostError, OSError) as error:
                extra = {"instance": id, "error": str(error)}
                log.info("an instance's models cannot be looked at", extra=extra)

    def _known(self, id: InstanceId) -> Shelf | None:
        with self._lock:
            return self._shelves.get(id)

    def _shelf(self, id: InstanceId) -> Shelf:
        """Raises `HostError`."""
        if (found := self._known(id)) is not None:
            return found
        with self._lock:
            opening = self._opening.setdefault(id, threading.Lock())
        with opening:
            if (found := self._known(id)) is not None:
                return found
            shelf = self._open(self._instance(id))
            shelf.recover()
            with self._lock:
                self._shelves[id] = shelf
            return shelf

    def _instance(self, id: InstanceId) -> Instance:
        instance = self._find(id)
        if instance is None or not instance.status().address:
            raise hosts.HostError("InstanceMissing", f"there is no instance {id} that serves")
        if instance.spec.models is None:
            raise hosts.HostError("InstanceMissing", f"{id} holds one model only")
        return instance

    def _open(self, instance: Instance) -> Shelf:
        settings, spec = self._settings, instance.spec
        assert spec.models is not None
        place = _place(instance)
        disk_bytes = settings.models_disk_bytes
        most_bytes = min(settings.archive_max_bytes, disk_bytes or settings.archive_max_bytes)
        limits = archives.Limits(settings.archive_max_members, most_bytes, settings.archive_max_ratio)
        bounds = Bounds(
            _limit(spec.environment, settings.models_per_instance),
            disk_bytes,
            settings.models_refresh_s,
            spec.download_timeout_s,
        )
        return Shelf(
            instance.id,
            spec.models,
            files=ModelFiles(instance.directory, self._unpacker, limits),
            client=ModelsClient(instance.status().address),
            blobs=self._blobs,
            clock=self._clock,
            bounds=bounds,
            base=place or CONTAINER_PLACE,
            is_built_in=bool(place),
            meter=partial(self._meter, instance),
            blamed=self._blame,
        )


class Blame:
    """Which contents have ended the instances that loaded them, and how often. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: Counter[tuple[str, str]] = Counter()

    def add(self, uri: str, etag: str) -> None:
        with self._lock:
            if len(self._ends) >= _MOST_BLAMED:
                self._ends.clear()
            self._ends[uri, etag] += 1

    def why(self, uri: str, etag: str) -> str:
        with self._lock:
            ends = self._ends[uri, etag]
        if ends < _ENDS_UNTIL_REFUSED:
            return ""
        return (
            f"{uri} has ended the instances that loaded it, {ends} times: it is not loaded again until the object is "
            "another; `clary logs` has their last words"
        )


def _place(instance: Instance) -> str:
    """Where our own model server was told that its models are; empty for a container of the user's own."""
    launch = files.read(instance.directory, files.LAUNCH, files.Launch)
    return str(launch.config.get("models_dir", "")) if launch else ""


def _limit(environment: dict[str, str], setting: int) -> int:
    wanted = environment.get(PER_INSTANCE, "")
    if wanted and not wanted.isdigit():
        raise hosts.HostError("ModelInvalid", f"{PER_INSTANCE} is {wanted!r}, which is no number of models")
    return int(wanted) if wanted else setting
