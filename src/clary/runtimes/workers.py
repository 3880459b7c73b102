"""The model server's side of its workers: which of them gets which request, and what becomes of a broken one.

A request goes to a worker that is free. When none is, it waits, except that a worker whose answers come fast gets
one request ahead, so that it need not wait for the server between two. A worker that can answer several requests
together is given what waits, as much as it takes, and nothing ahead: what comes meanwhile is its next batch. A worker
that ends, or does not answer within `SAGEMAKER_MODEL_SERVER_TIMEOUT`, costs the requests it had in hand (500) and is
replaced; what it had been sent ahead goes to another.

The first workers are forked before the event loop exists and before any thread; replacements from within it.
"""

import asyncio
import functools
import logging
import marshal
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, cast

from clary.runtimes import worker
from clary.runtimes.contract import (
    Deliver,
    HandlerFailed,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
    Overloaded,
)
from clary.runtimes.handler import Answers

DEFAULT_TIMEOUT_S = 60.0
MOST_WAITING_REQUESTS = 4096
MOST_WAITING_BYTES = 256 << 20
LARGEST_BATCH_BYTES = 1 << 20
FAST_S = 0.005
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LONGEST_LOAD_S = 360.0
LAST_WORDS_S = 0.05
"""What a worker sent before it ended is read first."""

log = logging.getLogger(__name__)

T = TypeVar("T")
DeliverOne = Callable[[InvocationResponse], None]
Waiting = tuple[InvocationRequest, DeliverOne]


class ScriptedModel:
    """A model that is a user's script: held by workers, all loaded. See `contract.Scripted`."""

    def __init__(self, load: Callable[[], Answers], count: int, timeout_s: float, limits: Limits) -> None:
        """Forks the workers and waits until all are loaded. Raises `LoadError`."""
        self.limits = limits
        self._load = load
        self._timeout_s = timeout_s
        self._started = [_fork(load, number == 0) for number in range(count)]
        self._together = 1
        # Of one model the platform says how long it may take to start; among many one that hangs holds up others.
        is_among_many = threading.current_thread() is not threading.main_thread()
        try:
            for pid, channel in self._started:
                self._together = _await_loaded(pid, channel, LONGEST_LOAD_S if is_among_many else None)
        except LoadError:
            self.end()
            raise

    @property
    def pids(self) -> Sequence[int]:
        return [pid for pid, _ in self._started]

    def end(self) -> None:
        """Ends the workers, when there is to be no dispatcher for them."""
        for pid, channel in self._started:
            channel.close()
            _end(pid)

    async def dispatcher(self, loop: asyncio.AbstractEventLoop) -> "Workers":
        workers = Workers(loop, self._load, self._timeout_s)
        for pid, channel in self._started:
            await workers.add(pid, channel, together=self._together)
        return workers


class Workers:
    """See `contract.Dispatcher`. Belongs to one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, load: Callable[[], Answers], timeout_s: float
    ) -> None:
        self._loop = loop
        self._load = load
        self.timeout_s = timeout_s
        self._workers: set[_Worker] = set()
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._scheduled = False
        self._pause_s = FIRST_PAUSE_S
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> Sequence[int]:
        return [each.pid for each in self._workers]

    async def add(self, pid: int, channel: socket.socket, *, together: int) -> None:
        """`together`: how many requests it takes at once; 0 for one that is not loaded yet."""
        channel.setblocking(False)
        # Before it is connected: of what fails in `connection_made` uvloop tells nobody who waits here.
        each = _Worker(self._loop, self, pid, os.pidfd_open(pid), together)
        try:
            await self._loop.create_unix_connection(lambda: each, sock=channel)
        except BaseException:
            each.forget()
            raise
        self._workers.add(each)
        if self._closed:
            each.close()
        else:
            self.hand_out()

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        """Each request goes to a worker of its own; the answers of a group are given when all are there."""
        group = _Group(len(requests), deliver)
        for place, request in enumerate(requests):
            self._submit(request, partial(group.take, place))
        if not self._scheduled:
            # At the end of the loop's turn, so that what came together can go together.
            self._scheduled = True
            self._loop.call_soon(self._hand_out_all)

    def _submit(self, request: InvocationRequest, deliver: DeliverOne) -> None:
        if len(self._waiting) >= MOST_WAITING_REQUESTS or self._waiting_bytes > MOST_WAITING_BYTES:
            refusal = Overloaded(f"{len(self._waiting)} requests are waiting for this instance already")
            self._loop.call_soon(deliver, refusal.response())
            return
        self._waiting.append((request, deliver))
        self._waiting_bytes += len(request.body)

    def _hand_out_all(self) -> None:
        self._scheduled = False
        self.hand_out()

    def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for each in list(self._workers):
            each.close()

    def hand_out(self) -> None:
        while self._waiting:
            ready = [each for each in self._workers if each.is_loaded]
            chosen = next((each for each in ready if not each.in_hand), None) or next(
                (each for each in ready if len(each.in_hand) == 1 and each.takes_ahead), None
            )
            if chosen is None:
                return
            chosen.send(self._take(chosen.together))

    def _take(self, most: int) -> list[Waiting]:
        """The oldest that wait, at least one."""
        taken: list[Waiting] = []
        size = 0
        while self._waiting and len(taken) < most:
            size += len(self._waiting[0][0].body)
            if taken and size > LARGEST_BATCH_BYTES:
                break
            taken.append(self._waiting.popleft())
            self._waiting_bytes -= len(taken[-1][0].body)
        return taken

    def loaded(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self.hand_out()

    def lost(self, gone: "_Worker", why: str) -> None:
        """Its requests in hand are answered, what is behind them goes first in the line, another takes its place."""
        self._workers.discard(gone)
        if self._closed:
            return
        log.error("worker %d ended: %s", gone.pid, why)
        in_hand = list(gone.in_hand)
        for request, deliver in reversed([each for batch in in_hand[1:] for each in batch]):
            self._waiting.appendleft((request, deliver))
            self._waiting_bytes += len(request.body)
        for _, deliver in in_hand[0] if in_hand else ():
            deliver(HandlerFailed(f"The script's process ended while it answered: {why}").response())
        delay_s = 0.0
        if not gone.is_loaded:
            delay_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._loop.call_later(delay_s, self._replace)

    def _replace(self) -> None:
        if self._closed:
            return
        try:
            pid, channel = _fork(self._load, tells_why=True)
        except OSError as error:  # no more processes or descriptors now
            self._replace_later(error)
            return
        task = self._loop.create_task(self.add(pid, channel, together=0))
        self._tasks.add(task)
        task.add_done_callback(partial(self._replaced, pid, channel))

    def _replaced(self, pid: int, channel: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            channel.close()  # the worker ends with it
        elif (error := task.exception()) is not None:
            channel.close()
            _end(pid)
            self._replace_later(error)

    def _replace_later(self, error: BaseException) -> None:
        """What waits would wait for ever without a worker."""
        log.error("a worker could not be replaced: %s", error)
        self._loop.call_later(self._pause_s, self._replace)


class _Group:
    """Requests that came together: their answers, until the last one is there."""

    def __init__(self, size: int, deliver: Deliver) -> None:
        self._answers: list[InvocationResponse | None] = [None] * size
        self._missing = size
        self._deliver = deliver

    def take(self, place: int, answer: InvocationResponse) -> None:
        self._answers[place] = answer
        self._missing -= 1
        if not self._missing:
            self._deliver([answer for answer in self._answers if answer is not None])


class _Worker(asyncio.Protocol):
    """One worker, as the server sees it. `in_hand`: the batches it was sent; it works at the first of them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, workers: Workers, pid: int, pidfd: int, together: int
    ) -> None:
        """`pidfd` is closed with the connection, or by `forget`."""
        self._loop = loop
        self._workers = workers
        self.pid = pid
        self.together = together
        self.is_fast = False
        self.in_hand: deque[list[Waiting]] = deque()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._began = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._pidfd = pidfd
        self._why = ""

    @property
    def is_loaded(self) -> bool:
        return self.together > 0

    @property
    def takes_ahead(self) -> bool:
        return self.is_fast and self.together == 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop.add_reader(self._pidfd, self._ended)

    def send(self, batch: list[Waiting]) -> None:
        assert self._transport is not None, "it was connected before it was known"
        self.in_hand.append(batch)
        self._transport.write(worker.frame(tuple(_message(request) for request, _ in batch)))
        if len(self.in_hand) == 1:
            self._begin()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= worker.LENGTH.size:
            end = worker.LENGTH.size + worker.LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            message: tuple[Any, ...] = marshal.loads(self._received[worker.LENGTH.size : end])
            del self._received[:end]
            self._take(message)

    def _ended(self) -> None:
        """What a script forked may hold the channel open, so that its end does not say it."""
        self.forget()
        if self._transport is not None:
            self._loop.call_later(LAST_WORDS_S, self._transport.abort)

    def forget(self) -> None:
        """Looks no more for its end."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget()
        if self._deadline is not None:
            self._deadline.cancel()
        how = _end(self.pid)
        self._workers.lost(self, self._why or how)

    def _begin(self) -> None:
        self._began = self._loop.time()
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._workers.timeout_s, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        """One timer for many requests: it looks how long the one in hand takes, and comes back."""
        self._deadline = None
        if not self.in_hand:
            return
        left_s = self._began + self._workers.timeout_s - self._loop.time()
        if left_s > 0:
            self._deadline = self._loop.call_later(left_s, self._look_at_the_time)
            return
        self._why = f"no answer within {self._workers.timeout_s:g} s (SAGEMAKER_MODEL_SERVER_TIMEOUT)"
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def _take(self, message: tuple[Any, ...]) -> None:
        if not self.is_loaded:
            _, self._why, self.together = message
            if self.together:
                self._workers.loaded()
            return
        if not self.in_hand:
            return
        batch = self.in_hand.popleft()
        self.is_fast = self._loop.time() - self._began < FAST_S
        if self.in_hand:
            self._begin()
        self._workers.hand_out()
        for (_, deliver), answer in zip(batch, message, strict=True):
            deliver(InvocationResponse(*answer))


def _message(request: InvocationRequest) -> tuple[Any, ...]:
    head = request.head
    # The body may be a view of the connection's buffer.
    return (head.content_type, head.accept, head.custom_attributes, head.headers, bytes(request.body))


def settings_of(environment: Mapping[str, str], vcpus: int) -> tuple[int, float]:
    """How many workers, and how long one may take for a request. Raises `LoadError`."""
    wanted = environment.get("SAGEMAKER_MODEL_SERVER_WORKERS", "")
    timeout = (
        environment.get("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS")
        or environment.get("SAGEMAKER_MODEL_SERVER_TIMEOUT")
        or f"{DEFAULT_TIMEOUT_S:g}"
    )
    if wanted and not (wanted.isdigit() and int(wanted) > 0):
        raise LoadError(f"SAGEMAKER_MODEL_SERVER_WORKERS is {wanted!r}, which is no number of processes")
    if not timeout.isdigit() or int(timeout) == 0:
        raise LoadError(f"SAGEMAKER_MODEL_SERVER_TIMEOUT is {timeout!r}, which is no number of seconds")
    # An instance type may have more vCPUs than the machine: its processes would only share what is there.
    count = int(wanted) if wanted else min(vcpus, len(os.sched_getaffinity(0)))
    return count, float(timeout)


def on_a_lasting_thread(start: Callable[[], T]) -> T:
    """Has a process started: the kernel ends it with the thread that did, so one that soon ends has another do it."""
    if threading.current_thread() is threading.main_thread():
        return start()
    return _forking_thread().submit(start).result()


def _fork(load: Callable[[], Answers], tells_why: bool) -> tuple[int, socket.socket]:
    return on_a_lasting_thread(partial(_fork_here, load, tells_why))


@functools.cache
def _forking_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="fork")


def _fork_here(load: Callable[[], Answers], tells_why: bool) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        # Of an event loop that runs in the server nothing may be left for a script that wants one of its own.
        signal.set_wakeup_fd(-1)
        asyncio._set_running_loop(None)
        asyncio.set_event_loop(None)
        worker.run(theirs, load, tells_why)
    theirs.close()
    return pid, ours


def _await_loaded(pid: int, channel: socket.socket, within_s: float | None) -> int:
    """How many requests it takes at once. Raises `LoadError`."""
    channel.settimeout(within_s)
    try:
        head = _read(channel, worker.LENGTH.size)
        data = _read(channel, worker.LENGTH.unpack(head)[0]) if head else b""
    except TimeoutError as error:
        raise LoadError(f"the script did not load its model within {within_s:g} s") from error
    if not data:
        raise LoadError(f"the script's process ended while it was loaded: {_end(pid)}")
    message: tuple[bool, str, int] = marshal.loads(data)
    is_loaded, why, together = message
    if not is_loaded:
        raise LoadError(why)
    return together


def _read(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            return b""
        data += part
    return data


def _end(pid: int) -> str:
    """Makes sure that it has ended; how it did."""
    try:
        os.kill(pid, signal.SIGKILL)  # no effect on one that has ended and waits to be asked about
        _, status = os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return "nothing more is known"
    if os.WIFSIGNALED(status):
        return f"it was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"it exited with code {os.waitstatus_to_exitcode(status)}"
