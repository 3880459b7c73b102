"""What control does again and again beside its reconcilers: each chore on a thread of its own, at its own pace.

A chore that fails is logged and done again the next time: nothing it left undone is lost.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import Clock
from clary.links import hosts
from clary.links.hosts import HostClient
from clary.links.metrics import MetricBatch
from clary.reconcilers import deployment_records, scaling_activities
from clary.store import Store
from clary.telemetry.store import MetricStore

log = logging.getLogger(__name__)

_STOP_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Chore:
    name: str
    every_s: float
    work: Callable[[], object]
    is_due_at_start: bool = False


class Chores:
    """Runs from `start` to `stop`."""

    def __init__(self, *chores: Chore) -> None:
        self._chores = chores
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for chore in self._chores:
            thread = threading.Thread(target=self._run, args=(chore,), name=chore.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Begins nothing any more and waits a moment for what is under way, which is repeatable."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_WITHIN_S)

    def _run(self, chore: Chore) -> None:
        wait_s = 0.0 if chore.is_due_at_start else chore.every_s
        while not self._stopping.wait(wait_s):
            wait_s = chore.every_s
            try:
                chore.work()
            except Exception:
                log.exception("a chore failed", extra={"chore": chore.name})


class HostMetrics:
    """Fetches what the host measured. Acknowledged only when it is stored; the host keeps it until then."""

    def __init__(self, host: HostClient, metrics: MetricStore) -> None:
        self._host = host
        self._metrics = metrics
        self._source = ""
        self._sequence = 0
        self._lock = threading.Lock()

    def collect(self) -> None:
        """Safe from any thread. The host hears of a reset here, and keeps nothing of what was before."""
        with self._lock:
            asked = hosts.TakeMetrics(self._source, self._sequence, self._metrics.since_ms)
            try:
                batches = self._host.call("take_metrics", asked, list[MetricBatch])
            except (hosts.HostError, hosts.HostUnavailable) as error:
                log.info("the host's metrics could not be had", extra={"error": str(error)})
                return
            for batch in batches:
                self._metrics.ingest(batch)
                self._source, self._sequence = batch.source, batch.sequence


class Cleaning:
    """Takes away what nobody will finish, or look at, any more."""

    def __init__(
        self, store: Store, blobs: FilesystemBlobs, clock: Clock, uploads_kept_for: timedelta
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._uploads_kept_for = uploads_kept_for

    def clean(self) -> None:
        """Each sort on its own: one that fails keeps none of the others."""
        for sort, forget in (
            ("uploads that nobody completed", self._forget_uploads),
            ("deployment records", self._forget_deployments),
            ("scaling activities", self._forget_activities),
            ("history of alarms", self._forget_history),
        ):
            try:
                count = forget()
            except Exception:
                log.exception("cleaning failed", extra={"what": sort})
                continue
            if count:
                log.info("old things are forgotten", extra={"what": sort, "count": count})

    def _forget_uploads(self) -> int:
        return self._blobs.abort_older(self._uploads_kept_for)

    def _forget_deployments(self) -> int:
        return deployment_records.forget_old(self._store, self._clock.now())

    def _forget_activities(self) -> int:
        return scaling_activities.forget_old(self._store, self._clock.now())

    def _forget_history(self) -> int:
        with self._store.write(on_full_disk=True) as tx:
            return tx.alarm_history.forget_old()
