"""Load at a given rate, or as fast as it goes, by one lean client that signs each request and checks each answer.

One thread, one event loop, keep-alive connections with one request at a time. At a rate, a request whose time has come
while every connection is busy waits for the first that is free; its latency counts from when it is sent. Nothing is
ever tried twice, and an answer that never comes breaks its connection.
"""

import asyncio
import hashlib
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import uvloop
import xgboost

from benchmarks.chaos.askers import Askers
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.paced_requests import Asked, Signing
from benchmarks.platform import Platform

TIMEOUT_S = 65.0
"""Longer than SageMaker gives an invocation: who has no answer by then gets none."""

_TICK_S = 0.002
_TOLERANCE = 1e-4


class Paced(Askers):
    """Begins with `with`. `models` maps a name to a booster whose prediction is a right answer; `by_model` counts.

    `endpoint` and `rate` may be changed under way; `asked_of` counts what each endpoint was asked.
    """

    def __init__(
        self,
        platform: Platform,
        endpoint: str,
        models: Mapping[str, xgboost.Booster],
        rows: Any,
        *,
        rate: float | None = None,
        connections: int = 8,
    ) -> None:
        """Without a rate every connection asks again as soon as it is answered."""
        chosen = np.asarray(rows[:500])
        bodies = [",".join(f"{value:.7g}" for value in row).encode() for row in chosen]
        predictions = [model.predict(xgboost.DMatrix(chosen)) for model in models.values()]
        self._names = list(models)
        self._asked = [
            Asked(body, hashlib.sha256(body).hexdigest(), [float(p[index]) for p in predictions])
            for index, body in enumerate(bodies)
        ]
        self._signing = Signing(platform)
        self.endpoint = endpoint
        self.asked_of: Counter[str] = Counter()
        self._port = platform.port
        self.rate = rate
        self._count = connections
        self.ledger = Ledger()
        self.by_model: Counter[str] = Counter()
        self.latencies = array("d")
        self._next = 0
        self._owed = 0.0  # requests whose time has come
        self._paid_at = 0.0
        self._free: deque[_Connection] = deque()
        self._connections: set[_Connection] = set()
        super().__init__([self._run])

    def until(self, more: int, timeout_s: float = 60.0) -> None:
        """Waits until that many further requests were answered, right or wrong, or the time is over."""
        goal, deadline = self.ledger.asked + more, time.monotonic() + timeout_s
        while self.ledger.asked < goal and time.monotonic() < deadline:
            time.sleep(0.01)

    def mark(self) -> "Mark":
        return Mark(time.monotonic(), self.ledger.asked, len(self.latencies))

    def since(self, mark: "Mark") -> "Stretch":
        now = self.mark()
        return Stretch(
            (now.asked - mark.asked) / (now.at - mark.at), self.latencies[mark.answered : now.answered]
        )

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._paid_at = loop.time()
        for _ in range(self._count):
            self._open(loop)
        while not (
            self.is_over.is_set() and all(connection.asked is None for connection in self._connections)
        ):
            await asyncio.sleep(_TICK_S)
            self._pay(loop.time())
            self._give_up_on_late_ones()
        for connection in list(self._connections):
            connection.close()

    def _pay(self, now: float) -> None:
        if self.rate is not None:
            self._owed += (now - self._paid_at) * self.rate
        self._paid_at = now
        while self._free and self._may_ask():
            self._ask(self._free.popleft())

    def _give_up_on_late_ones(self) -> None:
        limit = time.perf_counter() - TIMEOUT_S
        for connection in [each for each in self._connections if each.is_late(limit)]:
            connection.abort(f"no answer in {TIMEOUT_S:g} s")

    def _may_ask(self) -> bool:
        return not self.is_over.is_set() and (self.rate is None or self._owed >= 1.0)

    def _ask(self, connection: "_Connection") -> None:
        asked = self._asked[self._next % len(self._asked)]
        self._next += 1
        self._owed -= 1.0
        self.asked_of[self.endpoint] += 1
        connection.send(asked, self._signing.request(self.endpoint, asked))

    # What connections tell.

    def is_free(self, connection: "_Connection") -> None:
        if self._may_ask():
            self._ask(connection)
        else:
            self._free.append(connection)

    def answered(self, asked: Asked, status: int, body: bytes, took_s: float) -> None:
        self.latencies.append(took_s)
        if status != 200:
            self.ledger.wrong[f"{status} {body[:120]!r}"] += 1
            return
        value = float(body)
        for name, expected in zip(self._names, asked.expected, strict=True):
            if abs(value - expected) <= _TOLERANCE:
                self.ledger.right += 1
                self.by_model[name] += 1
                return
        self.ledger.wrong["another prediction"] += 1

    def broke(self, how: str) -> None:
        self.ledger.broken[how] += 1

    def lost(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self.is_over.is_set():
            self._open(asyncio.get_running_loop())

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._connect(loop))
        _PENDING.add(task)
        task.add_done_callback(_PENDING.discard)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self.is_over.is_set():
            try:
                made = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
            except OSError as error:
                self.broke(type(error).__name__)
                await asyncio.sleep(0.01)  # where nobody listens it would spin
                continue
            self._connections.add(made[1])
            self.is_free(made[1])
            return


_PENDING: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a load."""

    at: float
    asked: int
    answered: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a load saw since a mark."""

    rate: float
    latencies: "array[float]"


class _Connection(asyncio.Protocol):
    def __init__(self, load: Paced) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._sent = 0.0
        self.asked: Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, asked: Asked, request: bytes) -> None:
        self.asked, self._data, self._sent = asked, b"", time.perf_counter()
        assert self._transport is not None, "a free connection is open"
        self._transport.write(request)

    def is_late(self, limit: float) -> bool:
        return self.asked is not None and self._sent < limit

    def abort(self, why: str) -> None:
        self.asked = None
        self._load.broke(why)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower()
        _, _, rest = fields.partition(b"content-length:")
        if len(body) < int(rest.split(b"\r\n", 1)[0]):
            return
        asked, self.asked = self.asked, None
        assert asked is not None, "an answer follows a request"
        took_s = time.perf_counter() - self._sent
        self._load.answered(asked, int(head[9:12]), body, took_s)
        if b"connection: close" in fields:
            self.close()
        else:
            self._load.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.asked is not None:
            self.asked = None
            self._load.broke("closed without an answer" if error is None else type(error).__name__)
        self._load.lost(self)
