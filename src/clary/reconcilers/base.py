"""The loop that makes it so: takes keys that are due, one lease each, and lets their reconciler work on them.

A key is due because somebody wished it (in the transaction that changed the resource), because its reconciler
asked to look again, or because the driver reported a change that the records do not show yet (`sweep`). Workers
are threads; two keys never wait for each other. Whatever a reconciler raises is logged, noted in the resource's
time line, and tried again later and later: nothing is given up and nothing spins.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.drivers.base import Driver, DriverError
from clary.store import Lease, LeaseLost, StaleResource, Store

log = logging.getLogger(__name__)

LEASE_S = 60.0
SWEEP_S = 30.0
_LONGEST_WAIT_S = 5.0
_WATCH_S = 1.0
"""Short, because `stop` waits for it."""
_LONGEST_BACK_OFF_S = 60.0


class Routing(Protocol):
    """The gateways, seen from control. Every method may be repeated; each raises when it could not keep its word."""

    def publish(self, route: EndpointRoute) -> None:
        """Returns when every registered gateway applied the route. The same one again is cheap."""

    def withdraw(self, *keys: EndpointKey) -> None:
        """Returns when no gateway knows these endpoints any more."""

    def drain(self, ids: Sequence[InstanceId], timeout_s: float) -> set[InstanceId]:
        """Waits until no request is under way at these instances; those that are still busy in the end."""


class Reconciler(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def settled(self) -> frozenset[str]:
        """Statuses in which nothing is left to do, ever: a start passes them over."""

    def reconcile(self, lease: Lease) -> float | None:
        """Brings one resource nearer to what is wanted; when to look again, None when it has settled.

        Level-triggered and repeatable: it may have been killed after any step of an earlier try.
        """


class Runner:
    """Runs reconcilers on threads from `start` to `stop`. Tests call `run_pending` instead and need no threads."""

    def __init__(
        self, store: Store, driver: Driver, clock: Clock, reconcilers: Sequence[Reconciler], workers: int = 8
    ) -> None:
        self._store = store
        self._driver = driver
        self._clock = clock
        self._reconcilers = {reconciler.kind: reconciler for reconciler in reconcilers}
        self._workers = workers
        self._changed = threading.Condition()
        self._has_wish = False
        self._running = 0
        self._pauses = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pool: ThreadPoolExecutor | None = None
        store.subscribe(self._wake)

    def recover(self) -> None:
        """What a start begins with: nobody knows what happened while no control ran."""
        with self._store.write(on_full_disk=True) as tx:
            if not self._store.is_shared:
                tx.work.release_all()
            for kind, reconciler in self._reconcilers.items():
                tx.work.wish_all(kind, but=reconciler.settled)

    def start(self) -> None:
        self.recover()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="reconciler")
        for name, target in (("dispatcher", self._dispatch), ("watcher", self._watch)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Returns when no reconciler works any more. What was under way is finished, not torn."""
        self._stopping.set()
        self._wake()
        for thread in self._threads:
            thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._threads, self._pool = [], None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is reconciled inside the block; entering waits for what is under way."""
        with self._changed:
            self._pauses += 1
            self._changed.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            with self._changed:
                self._pauses -= 1
            self._wake()

    def run_pending(self) -> int:
        """Reconciles what is due now, on this thread, until nothing is; how many times something was."""
        count = 0
        while leases := self._take(1):
            self._work(leases[0])
            count += 1
        return count

    def sweep(self) -> None:
        """Compares what the driver holds with the records: wakes whom it concerns, ends what nobody wants."""
        seen = {status.instance_id: status.phase for status in self._driver.list()}
        # Read after the driver: an instance is recorded before it starts, so one without a record is nobody's.
        with self._store.read() as tx:
            recorded = tx.instances.phases()
        orphans = [id_ for id_ in seen if id_ not in recorded]
        if orphans:
            log.warning("instances that nobody wants are removed", extra={"instances": orphans})
            self._driver.stop(orphans, grace_s=0.0)
            self._driver.remove(orphans)
        concerned = {uid for id_, (uid, phase, _) in recorded.items() if seen.get(id_, "missing") != phase}
        if concerned:
            self._wish(concerned)

    def _wish(self, uids: set[str]) -> None:
        with self._store.write(on_full_disk=True) as tx:
            for uid in sorted(uids):
                resource = tx.resources.get(uid)
                if resource is not None:
                    tx.work.wish(resource.kind, uid)

    def _wake(self) -> None:
        with self._changed:
            self._has_wish = True
            self._changed.notify_all()

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._changed:
                    free = 0 if self._pauses else self._workers - self._running
                    self._has_wish = False
                leases = self._take(free) if free else []
                for lease in leases:
                    self._submit(lease)
                if not leases:
                    self._rest()
            except Exception:
                log.exception("taking work failed")
                self._stopping.wait(1.0)

    def _rest(self) -> None:
        """Sleeps until a wish, a free worker or the next due time."""
        with self._store.read() as tx:
            due = tx.work.next_due()
        wait_s = _LONGEST_WAIT_S
        if due is not None:
            wait_s = min(wait_s, max(0.01, (due - self._clock.now()) / timedelta(seconds=1)))
        with self._changed:
            if self._running >= self._workers or self._pauses:
                wait_s = _LONGEST_WAIT_S
            self._changed.wait_for(lambda: self._has_wish or self._stopping.is_set(), wait_s)

    def _take(self, limit: int) -> list[Lease]:
        with self._store.read() as tx:
            due = tx.work.next_due()
        if due is None or due > self._clock.now():
            return []
        with self._store.write(on_full_disk=True) as tx:
            return tx.work.take(limit, LEASE_S)

    def _submit(self, lease: Lease) -> None:
        assert self._pool is not None, "work is dispatched only after start"
        with self._changed:
            is_paused = self._pauses > 0
            self._running += 0 if is_paused else 1
        if not is_paused:
            self._pool.submit(self._work_counted, lease)
            return
        with self._store.write(on_full_disk=True) as tx:  # paused since it was taken: it stays due
            tx.work.finish(lease, 0.0)

    def _work_counted(self, lease: Lease) -> None:
        try:
            self._work(lease)
        except Exception:
            # The lease runs out by itself, and the key is due again then.
            log.exception("work could not be given back", extra={"kind": lease.kind, "uid": lease.uid})
        finally:
            with self._changed:
                self._running -= 1
            self._wake()

    def _work(self, lease: Lease) -> None:
        again_s: float | None
        has_failed = False
        try:
            again_s = self._reconcilers[lease.kind].reconcile(lease)
        except (LeaseLost, StaleResource):
            again_s = 0.0
        except Exception as error:  # noqa: BLE001 whatever it is, this key alone is tried again later
            has_failed = True
            again_s = min(_LONGEST_BACK_OFF_S, 0.25 * 2.0 ** min(lease.attempts, 10))
            self._note(lease, error)
        with self._store.write(on_full_disk=True) as tx:
            tx.work.finish(lease, again_s, has_failed=has_failed)

    def _note(self, lease: Lease, error: Exception) -> None:
        fields = {"kind": lease.kind, "uid": lease.uid, "attempts": lease.attempts}
        if isinstance(error, DriverError):
            log.warning("the driver cannot do it now", extra=fields | {"error": str(error)})
        else:
            log.error("reconciling failed", extra=fields, exc_info=error)
        # The log has it: what is held back for deletions on a full disk is not for this.
        with suppress(Fault), self._store.write() as tx:
            if tx.resources.get(lease.uid) is not None:
                tx.events.add(lease.uid, "step failed", error=f"{type(error).__name__}: {error}"[:500])

    def _watch(self) -> None:
        seen, swept = -1, float("-inf")
        while not self._stopping.is_set():
            try:
                newest = self._driver.wait(seen, _WATCH_S)
                if newest != seen or self._clock.monotonic() - swept >= SWEEP_S:
                    self.sweep()
                    seen, swept = newest, self._clock.monotonic()
            except DriverError as error:
                log.warning("the driver does not answer", extra={"error": str(error)})
                self._stopping.wait(0.5)
            except Exception:
                log.exception("watching instances failed")
                self._stopping.wait(1.0)
