"""Predicts what is waiting, together.

Requests come in groups: what one connection sent in one piece, to be answered in one piece. All groups that arrive
in one turn of the event loop are predicted in one call at the end of that turn. Nothing ever waits for more to
come: an idle server answers a single request at once. Small batches are predicted on the loop itself, because
handing them to a thread costs more than they do; large or slow ones go to worker threads so that pings are
answered meanwhile, and what arrives until a worker is free becomes the next batch.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from clary.runtimes.contract import (
    Deliver,
    HandlerFailed,
    InvocationRequest,
    InvocationResponse,
    Model,
    Overloaded,
)

MOST_WAITING_REQUESTS = 4096
MOST_WAITING_BYTES = 256 << 20
LARGEST_BATCH_BYTES = 1 << 20
LARGEST_INLINE_BYTES = 64 << 10
LONGEST_INLINE_S = 0.005
LONGEST_FIRST_S = 0.5
"""A framework's first prediction compiles and loads: it alone says nothing, unless it takes as long as this."""

log = logging.getLogger(__name__)


class _Group(NamedTuple):
    """Requests of one connection; `deliver` gets their answers, in their order."""

    requests: Sequence[InvocationRequest]
    deliver: Deliver
    size: int  # bytes of all bodies


class Batcher:
    """Belongs to one event loop; `submit` and `close` are called on it. `pool`: threads that others use too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        model: Model,
        workers: int,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._loop = loop
        self._model = model
        self._workers = workers
        self._owns_pool = pool is None
        self._pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._busy_workers = 0
        self._scheduled = False
        self._groups: list[_Group] = []
        self._count = 0  # requests in all groups
        self._bytes = 0
        self._inline_bytes = LARGEST_INLINE_BYTES
        self._is_first = True

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        """`deliver` is called on the loop, once, and never before `submit` has returned."""
        if self._count + len(requests) > MOST_WAITING_REQUESTS or self._bytes > MOST_WAITING_BYTES:
            refusal = Overloaded(f"{self._count} requests are waiting for this instance already")
            self._loop.call_soon(deliver, [refusal.response()] * len(requests))
            return
        size = sum([len(body) for _, body in requests])
        self._groups.append(_Group(requests, deliver, size))
        self._count += len(requests)
        self._bytes += size
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        if self._owns_pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _flush(self) -> None:
        self._scheduled = False
        while self._groups:
            if self._bytes <= self._inline_bytes:
                self._run_inline(self._take_all())
            elif self._busy_workers < self._workers:
                self._busy_workers += 1
                self._pool.submit(self._work, self._take_batch())
            else:
                return  # the worker that gets free first comes back here

    def _run_inline(self, groups: Sequence[_Group]) -> None:
        began = time.monotonic()
        responses = _predict(self._model, _requests(groups))
        elapsed_s = time.monotonic() - began
        longest_s, self._is_first = (LONGEST_FIRST_S if self._is_first else LONGEST_INLINE_S), False
        if elapsed_s > longest_s:
            self._inline_bytes = sum(group.size for group in groups) // 2
        _deliver(groups, responses)

    def _work(self, groups: Sequence[_Group]) -> None:
        began = time.monotonic()
        responses = _predict(self._model, _requests(groups))
        elapsed_s = time.monotonic() - began
        self._loop.call_soon_threadsafe(self._finish, groups, responses, elapsed_s)

    def _finish(
        self, groups: Sequence[_Group], responses: Sequence[InvocationResponse], elapsed_s: float
    ) -> None:
        self._busy_workers -= 1
        if elapsed_s < LONGEST_INLINE_S / 2:
            size = sum(group.size for group in groups)
            self._inline_bytes = min(max(size, self._inline_bytes), LARGEST_INLINE_BYTES)
        _deliver(groups, responses)
        self._flush()

    def _take_all(self) -> list[_Group]:
        taken = self._groups
        self._groups, self._count, self._bytes = [], 0, 0
        return taken

    def _take_batch(self) -> list[_Group]:
        """The oldest groups, as many as make one batch for a worker."""
        count = size = 0
        for group in self._groups:
            if count and size + group.size > LARGEST_BATCH_BYTES:
                break
            count += 1
            size += group.size
        taken = self._groups[:count]
        del self._groups[:count]
        self._count -= sum(len(group.requests) for group in taken)
        self._bytes -= size
        return taken


def _requests(groups: Sequence[_Group]) -> Sequence[InvocationRequest]:
    if len(groups) == 1:
        return groups[0].requests
    return [request for group in groups for request in group.requests]


def _deliver(groups: Sequence[_Group], responses: Sequence[InvocationResponse]) -> None:
    start = 0
    for requests, deliver, _ in groups:
        end = start + len(requests)
        deliver(responses[start:end])
        start = end


def _predict(model: Model, requests: Sequence[InvocationRequest]) -> list[InvocationResponse]:
    """Never raises: what a model throws becomes the answer of those requests that caused it."""
    try:
        responses = model.predict(requests)
        if len(responses) == len(requests):
            return responses
        fault: Exception = RuntimeError(f"{len(responses)} answers for {len(requests)} requests")
    except Exception as error:  # noqa: BLE001  (a model's code: anything may come)
        fault = error
    if len(requests) > 1:
        return [_predict(model, [request])[0] for request in requests]
    log.error("invocation failed: %s: %s", type(fault).__name__, fault, exc_info=fault)
    return [HandlerFailed(f"{type(fault).__name__}: {fault}").response()]
