"""Looks after running instances: their pings and their end. One loop in one thread, a task an instance.

The end is seen through a pidfd of the minder, which works for processes that are not this host's children, and
the ping as often as `Pace` says: quickly while an instance starts, since somebody waits for it, and rarely after.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.instances import Failure
from clary.host import failures, limits
from clary.host.probing import Answer, ping
from clary.host.records import Instance
from clary.links import processes

FIRST_PAUSE_S = 0.02
EAGER_S = 1.0
GROWTH = 1.3
FAILURES_TO_BE_UNHEALTHY = 3
LATE_S = 1.0
"""A ping whose time was over so long before anybody here looked says nothing of the instance: the host had no turn."""

AGAIN_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    interval_s: float
    timeout_s: float


class Owner(Protocol):
    """Who is told: `Instances`."""

    def became_ready(self, instance: Instance) -> None: ...

    def became_unhealthy(self, instance: Instance, answer: str) -> None: ...

    def end_because(self, instance: Instance, failure: Failure) -> None: ...

    def has_ended(self, instance: Instance, probe: str) -> None: ...


class PingWatcher:
    """See above. `watch` may be called from any thread."""

    def __init__(self, owner: Owner, pace: Pace, clock: Clock) -> None:
        self._owner = owner
        self._pace = pace
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watcher", daemon=True)
        self._thread.start()

    def watch(self, instance: Instance) -> None:
        self._loop.call_soon_threadsafe(self._begin, instance)

    def close(self) -> None:
        """Looks no more; the instances go on."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, instance: Instance) -> None:
        task = self._loop.create_task(self._attend(instance))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attend(self, instance: Instance) -> None:
        probing = _Probing(instance, self._owner, self._pace, self._clock)
        while True:
            try:
                await self._until_gone(instance, probing)
                self._owner.has_ended(instance, probing.last.text)
                return
            except Exception:  # out of descriptors, say: nobody else would ever see it end
                log.exception("an instance could not be watched", extra={"instance": instance.id})
            await asyncio.sleep(AGAIN_S)

    async def _until_gone(self, instance: Instance, probing: "_Probing") -> None:
        minder = instance.minder
        assert minder is not None, "an instance is watched when it has a minder"
        try:
            descriptor = os.pidfd_open(minder.pid)
        except ProcessLookupError:
            return
        gone = asyncio.Event()
        self._loop.add_reader(descriptor, gone.set)
        try:
            if processes.is_alive(minder):  # else the pid is somebody else's by now
                await probing.run(gone)
        finally:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)


class _Probing:
    """The pings of one instance until it is gone."""

    def __init__(self, instance: Instance, owner: Owner, pace: Pace, clock: Clock) -> None:
        self._instance = instance
        self._owner = owner
        self._pace = pace
        self._clock = clock
        self._failed = 0
        self.last = Answer(False, "none")

    async def run(self, gone: asyncio.Event) -> None:
        began = self._clock.monotonic()
        pause = FIRST_PAUSE_S
        while not gone.is_set():
            phase = self._instance.state.phase
            if phase == "stopping" or self._instance.state.failure is not None:
                await gone.wait()
                return
            asked = self._clock.monotonic()
            self.last = await ping(self._instance.socket, self._pace.timeout_s)
            waited = self._clock.monotonic() - began
            if self.last.is_well or self._clock.monotonic() - asked < self._pace.timeout_s + LATE_S:
                self._judge(waited)
            if self._instance.state.phase != "starting":
                pause = self._pace.interval_s
            elif waited > EAGER_S:
                pause = min(pause * GROWTH, self._pace.interval_s)
            await _wait(gone, pause)

    def _judge(self, waited_s: float) -> None:
        instance = self._instance
        if self.last.is_well:
            self._failed = 0
            self._owner.became_ready(instance)
        elif instance.state.phase == "starting":
            if waited_s > instance.spec.startup_timeout_s:
                self._owner.end_because(instance, failures.ping_timeout(instance.spec, self.last.text))
        else:
            self._failed += 1
            if self._failed >= FAILURES_TO_BE_UNHEALTHY:
                self._owner.became_unhealthy(instance, self.last.text)


class MemoryWatch:
    """Ends instances over their memory. `check` about once a second.

    A container that is over it alone is left to its engine, where that holds it: of two that watch, chance would say
    who finds the words. The engine knows nothing of other containers that share the memory.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def check(self, measured: Sequence[tuple[Instance, limits.Usage]]) -> None:
        """The containers of one instance, which share its memory. The largest one is ended."""
        for instance, usage in measured:
            instance.peak_bytes = max(instance.peak_bytes, usage.resident_bytes)
        limit = measured[0][0].spec.memory_bytes
        if sum(usage.resident_bytes for _, usage in measured) <= limit:
            return
        exact = [
            (limits.exact_resident_bytes(*each.roots), number)
            for number, (each, _) in enumerate(measured)
            if each.minder is not None
        ]
        total = sum(size for size, _ in exact)
        if total > limit:
            size, number = max(exact)
            largest = measured[number][0]
            if size > limit and largest.is_held_by_engine:
                return
            self._owner.end_because(largest, failures.out_of_memory(largest.spec, size, total))


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
