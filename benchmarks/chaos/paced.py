"""Load at a given rate, or as fast as it goes, by one lean client that signs each request and checks each answer.

One thread, one event loop, keep-alive connections with one request at a time. At a rate, a request whose time has come
while every connection is busy waits for the first that is free; its latency counts from when it is sent. Nothing is
ever tried twice.
"""

import asyncio
import hashlib
import hmac
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import uvloop
import xgboost

from benchmarks.chaos.ledger import Ledger
from benchmarks.platform import Platform

_TICK_S = 0.002
_TOLERANCE = 1e-4


class Paced:
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
            _Asked(body, hashlib.sha256(body).hexdigest(), [float(p[index]) for p in predictions])
            for index, body in enumerate(bodies)
        ]
        self._signing = _Signing(platform)
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
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Paced":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Every request under way gets its answer first."""
        self._is_over = True
        self._thread.join(90)

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
        while not (self._is_over and all(connection.asked is None for connection in self._connections)):
            await asyncio.sleep(_TICK_S)
            self._pay(loop.time())
        for connection in list(self._connections):
            connection.close()

    def _pay(self, now: float) -> None:
        if self.rate is not None:
            self._owed += (now - self._paid_at) * self.rate
        self._paid_at = now
        while self._free and self._may_ask():
            self._ask(self._free.popleft())

    def _may_ask(self) -> bool:
        return not self._is_over and (self.rate is None or self._owed >= 1.0)

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

    def answered(self, asked: "_Asked", status: int, body: bytes, took_s: float) -> None:
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
        if not self._is_over:
            self._open(asyncio.get_running_loop())

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._connect(loop))
        _PENDING.add(task)
        task.add_done_callback(_PENDING.discard)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_over:
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


@dataclass(frozen=True, slots=True)
class _Asked:
    body: bytes
    sha256: str
    expected: Sequence[float]


class _Connection(asyncio.Protocol):
    def __init__(self, load: Paced) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._sent = 0.0
        self.asked: _Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, asked: _Asked, request: bytes) -> None:
        self.asked, self._data, self._sent = asked, b"", time.perf_counter()
        assert self._transport is not None, "a free connection is open"
        self._transport.write(request)

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


class _Signing:
    """SigV4 of invocations; what does not change within a second is kept that long."""

    def __init__(self, platform: Platform) -> None:
        key = platform.running.key
        self._secret, self._id = key.secret_access_key, key.access_key_id
        self._host = f"127.0.0.1:{platform.port}"
        self._second = 0
        self._made: dict[tuple[str, str], bytes] = {}

    def request(self, endpoint: str, asked: _Asked) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._made.clear()
            self._begin_second(datetime.fromtimestamp(second, UTC))
        known = (endpoint, asked.sha256)
        request = self._made.get(known)
        if request is None:
            request = self._made[known] = self._sign(f"/endpoints/{endpoint}/invocations", asked)
        return request

    def _begin_second(self, now: datetime) -> None:
        self._moment = f"{now:%Y%m%dT%H%M%SZ}"
        day = f"{now:%Y%m%d}"
        self._scope = f"{day}/us-east-1/sagemaker/aws4_request"
        key = f"AWS4{self._secret}".encode()
        for part in (day, "us-east-1", "sagemaker", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key

    def _sign(self, path: str, asked: _Asked) -> bytes:
        signed = "content-type;host;x-amz-date"
        canonical = (
            f"POST\n{path}\n\ncontent-type:text/csv\nhost:{self._host}\nx-amz-date:{self._moment}\n\n"
            f"{signed}\n{asked.sha256}"
        )
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._moment}\n{self._scope}\n{hashed}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: text/csv\r\n"
            f"X-Amz-Date: {self._moment}\r\nContent-Length: {len(asked.body)}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._id}/{self._scope}, SignedHeaders={signed}, "
            f"Signature={signature}\r\n\r\n"
        ).encode() + asked.body
