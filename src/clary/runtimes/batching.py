"""Predicts what is waiting, together.

Requests that arrive in one turn of the event loop are predicted in one call at the end of that turn. Nothing
ever waits for more to come: an idle server answers a single request at once. Small batches are predicted on
the loop itself, because handing them to a thread costs more than they do; large or slow ones go to worker
threads so that pings are answered meanwhile, and what arrives until a worker is free becomes the next batch.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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

log = logging.getLogger(__name__)


class Batcher:
    """Belongs to one event loop; `submit` and `close` are called on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, model: Model, workers: int) -> None:
        self._loop = loop
        self._model = model
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._busy_workers = 0
        self._scheduled = False
        self._requests: list[InvocationRequest] = []
        self._deliveries: list[Deliver] = []
        self._bytes = 0
        self._inline_bytes = LARGEST_INLINE_BYTES

    def submit(self, request: InvocationRequest, deliver: Deliver) -> None:
        """`deliver` is called on the loop, once, and never before `submit` has returned."""
        if len(self._requests) >= MOST_WAITING_REQUESTS or self._bytes > MOST_WAITING_BYTES:
            refusal = Overloaded(f"{len(self._requests)} requests are waiting for this instance already")
            self._loop.call_soon(deliver, refusal.response())
            return
        self._requests.append(request)
        self._deliveries.append(deliver)
        self._bytes += len(request.body)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _flush(self) -> None:
        self._scheduled = False
        while self._requests:
            if self._bytes <= self._inline_bytes:
                self._run_inline(*self._take_all())
            elif self._busy_workers < self._workers:
                self._run_in_worker(*self._take_batch())
            else:
                return  # the worker that gets free first comes back here

    def _run_inline(self, requests: Sequence[InvocationRequest], deliveries: Sequence[Deliver]) -> None:
        size = sum([len(request.body) for request in requests])
        began = time.monotonic()
        responses = _predict(self._model, requests)
        if time.monotonic() - began > LONGEST_INLINE_S:
            self._inline_bytes = size // 2
        for deliver, response in zip(deliveries, responses, strict=True):
            deliver(response)

    def _run_in_worker(self, requests: Sequence[InvocationRequest], deliveries: Sequence[Deliver]) -> None:
        self._busy_workers += 1
        self._pool.submit(self._work, requests, deliveries)

    def _work(self, requests: Sequence[InvocationRequest], deliveries: Sequence[Deliver]) -> None:
        began = time.monotonic()
        responses = _predict(self._model, requests)
        elapsed_s = time.monotonic() - began
        self._loop.call_soon_threadsafe(self._finish, requests, deliveries, responses, elapsed_s)

    def _finish(
        self,
        requests: Sequence[InvocationRequest],
        deliveries: Sequence[Deliver],
        responses: Sequence[InvocationResponse],
        elapsed_s: float,
    ) -> None:
        self._busy_workers -= 1
        if elapsed_s < LONGEST_INLINE_S / 2:
            size = sum(len(request.body) for request in requests)
            self._inline_bytes = min(max(size, self._inline_bytes), LARGEST_INLINE_BYTES)
        for deliver, response in zip(deliveries, responses, strict=True):
            deliver(response)
        self._flush()

    def _take_all(self) -> tuple[list[InvocationRequest], list[Deliver]]:
        taken = self._requests, self._deliveries
        self._requests, self._deliveries, self._bytes = [], [], 0
        return taken

    def _take_batch(self) -> tuple[list[InvocationRequest], list[Deliver]]:
        """The oldest requests, as many as make one batch for a worker."""
        count = size = 0
        for request in self._requests:
            if count and size + len(request.body) > LARGEST_BATCH_BYTES:
                break
            count += 1
            size += len(request.body)
        taken = self._requests[:count], self._deliveries[:count]
        del self._requests[:count], self._deliveries[:count]
        self._bytes -= size
        return taken


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
