"""The gateway's HTTP/1.1 client: pooled connections to one address, by callbacks.

An `Upstream` is one address (an instance, or control). `send` takes a complete request and whoever waits for the
answer; everything that happens comes as calls on that `Waiter`, exactly one of `on_complete` and `on_broken` last.
The pool is last in, first out, so what is not needed grows idle and is closed.

What it leaves to others: whether to try again. `on_broken` says what is known: whether the request can have been
seen at all, whether a byte of the answer came, and whether the connection had been used before (then the other side
may simply have closed it while idle).
"""

import asyncio
import errno
from collections.abc import Callable
from enum import Enum
from logging import getLogger
from typing import Any, Protocol, TypeVar

import httptools

log = getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0  # on a busy machine either side may wait for seconds until it runs
IDLE_CONNECTIONS = 128
IDLE_S = 60.0
_BUSY_S = 2.0  # so long a full queue of connections is waited for
_BUSY_PAUSE_S, _LONGEST_BUSY_PAUSE_S = 0.005, 0.25
_CLOCK_TICK_S = 0.01  # timers go by whole milliseconds
_LONGEST_HEAD = 64 << 10

Headers = list[tuple[bytes, bytes]]

_P = TypeVar("_P", bound=asyncio.Protocol)


class Open(Protocol):
    """A connection that `sweep` looks after."""

    def expire(self, now: float) -> None:
        """Ends it when what it does has taken too long, or when it did nothing for long."""


class Broken(Enum):
    """How an exchange with an upstream failed."""

    UNREACHABLE = "no connection"  # it has seen nothing of the request
    STALE = "a connection that had been idle ended without an answer"
    LOST = "the connection ended without an answer"
    TIMEOUT = "no complete answer in time"
    CUT = "the answer ended early"
    GARBAGE = "the answer is no HTTP"


class Waiter:
    """Who waits for one answer. Every method is called on the loop and must not block."""

    __slots__ = ()

    def on_connected(self, connection: "Connection") -> None:
        """The request was written; the waiter may write more of its body to `connection`."""

    def on_head(self, connection: "Connection", status: int, headers: Headers) -> None:
        """Status and headers, names in lower case."""

    def on_body(self, data: bytes) -> None:
        """Some of the body."""

    def on_complete(self) -> None:
        """The whole answer has come."""

    def on_broken(self, how: Broken) -> None:
        """There will be no (more) answer."""

    def on_congested(self) -> None:
        """The upstream takes the body more slowly than it is written: pause."""

    def on_writable(self) -> None:
        """Go on writing."""


class Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    __slots__ = (
        "_head_bytes",
        "_headers",
        "_is_clean",
        "_is_complete",
        "_is_head",
        "_is_paused",
        "_parser",
        "_transport",
        "_upstream",
        "_waiter",
        "deadline",
        "has_answered",
        "idle_since",
        "is_sent",
        "is_used",
        "keeps_alive",
        "status",
        "until_end",
    )

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._waiter: Waiter | None = None
        self._headers: Headers = []
        self._is_complete = False
        self._is_clean = True
        self._is_head = False
        self._is_paused = False
        self._head_bytes = 0
        self.has_answered = False
        self.is_used = False
        self.keeps_alive = False
        self.until_end = False
        self.status = 0
        self.is_sent = True
        self.deadline = 0.0
        self.idle_since = upstream.loop.time()

    # What its user calls.

    def begin(self, data: bytes, waiter: Waiter, deadline: float, *, is_head: bool = False) -> None:
        self._waiter = waiter
        self.deadline = deadline
        self.has_answered = False
        self.is_sent = True
        self.status = 0
        self._head_bytes = 0
        self._is_complete = False
        self._is_head = is_head
        if self._transport is None:
            self.give_up(Broken.UNREACHABLE)  # it ended as soon as it was there
        else:
            self._transport.write(data)
            waiter.on_connected(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Ends it without another word to the waiter. Nobody is given it any more, although the transport tells that
        it has ended only later."""
        self._waiter = None
        self._upstream.take_out(self)
        if self._transport is not None:
            self._transport.abort()

    def expire(self, now: float) -> None:
        if self.deadline:
            if now > self.deadline:
                self.give_up(Broken.TIMEOUT)
        elif now - self.idle_since > IDLE_S:
            self.abort()

    def give_up(self, how: Broken) -> None:
        waiter, self._waiter = self._waiter, None
        if self._transport is not None:
            self._transport.abort()
        if waiter is not None:
            waiter.on_broken(how)

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._upstream.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # nobody asked: it can never be used again
            return
        self.has_answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            log.exception("an answer could not be handled", extra={"address": self._upstream.address})
            self.give_up(Broken.GARBAGE)
        except httptools.HttpParserError:
            if self._is_complete:
                self._is_clean = False  # what follows the answer is no HTTP; the answer is
                self._finish()
            else:
                self.give_up(Broken.GARBAGE)
        else:
            if self._is_complete:
                self._finish()
            elif not self.status:
                self._head_bytes += len(data)
                if self._head_bytes > _LONGEST_HEAD:
                    self.give_up(Broken.GARBAGE)

    def eof_received(self) -> None:
        """It ends, and is given to nobody from now on."""
        self._upstream.take_out(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.forget(self)
        self._transport = None
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if self.until_end and error is None:
            waiter.on_complete()
        elif self.has_answered:
            waiter.on_broken(Broken.CUT)
        else:
            waiter.on_broken(Broken.STALE if self.is_used else Broken.LOST)

    def pause_writing(self) -> None:
        if self._waiter is not None:
            self._waiter.on_congested()

    def resume_writing(self) -> None:
        if self._waiter is not None:
            self._waiter.on_writable()

    # What the parser calls. Completion waits until it has returned (`data_received`): the waiter may well begin
    # the next request on this very connection.

    def on_message_begin(self) -> None:
        self._headers = []
        self.until_end = False
        if self._is_complete:
            self._is_clean = False  # bytes behind the end of the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200 or self._waiter is None or self._is_complete:
            return
        self.keeps_alive = self._parser.should_keep_alive()
        if not self.keeps_alive and self.status != 204 and self.status != 304:
            self.until_end = not any(n in (b"content-length", b"transfer-encoding") for n, _ in self._headers)
        if self._is_head:
            self._is_complete = True
            self.until_end = False
        self._waiter.on_head(self, self.status, self._headers)

    def on_body(self, data: bytes) -> None:
        if self._waiter is not None and not self._is_complete:
            self._waiter.on_body(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:  # 1xx only announces
            self._is_complete = True
            self.until_end = False

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        self.resume_reading()  # its waiter may have paused it with the very last part
        if self._is_head:
            self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body that never comes
        if waiter is not None and self.keeps_alive and self._is_clean and self.is_sent:
            self.is_used = True
            self._upstream.put_back(self)
        elif self._transport is not None:  # its waiter may have ended it with the very last part
            self._transport.abort()
        if waiter is not None:
            waiter.on_complete()


class Upstream:
    """One address and the connections to it. `address` is `unix:/path` or `tcp:host:port`.

    `connections` is shared by all upstreams: everything that is open, for `sweep`.
    """

    __slots__ = ("_closed", "_connecting", "_idle", "address", "connections", "loop")

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, connections: set[Open]) -> None:
        self.address = address
        self.loop = loop
        self.connections = connections
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(
        self, data: bytes, waiter: Waiter, deadline: float, *, fresh: bool = False, is_head: bool = False
    ) -> None:
        """Sends a request (or its head) and has `waiter` told what comes of it before `deadline` (loop time)."""
        if self._idle and not fresh:
            self._idle.pop().begin(data, waiter, deadline, is_head=is_head)
            return
        task = self.loop.create_task(self._connect_and_send(data, waiter, deadline, is_head))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def put_back(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_CONNECTIONS:
            connection.abort()
            return
        connection.deadline = 0.0
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def take_out(self, connection: Connection) -> None:
        """It is not idle any more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.take_out(connection)

    def close(self) -> None:
        """No connection stays idle any more; those in use end with their answers."""
        self._closed = True
        for connection in list(self._idle):
            connection.abort()

    async def _connect_and_send(self, data: bytes, waiter: Waiter, deadline: float, is_head: bool) -> None:
        try:
            connection = await connect(self.loop, self.address, lambda: Connection(self), deadline)
        except OSError:
            waiter.on_broken(unconnected(self.loop, deadline))
            return
        connection.begin(data, waiter, deadline, is_head=is_head)


async def connect(
    loop: asyncio.AbstractEventLoop, address: str, factory: Callable[[], _P], deadline: float
) -> _P:
    """A new connection. Raises OSError, also when it takes too long or beyond the deadline (loop time)."""
    kind, _, where = address.partition(":")
    host, _, port = where.rpartition(":")
    pause_s, busy_until = _BUSY_PAUSE_S, loop.time() + _BUSY_S
    async with asyncio.timeout_at(min(deadline, loop.time() + CONNECT_TIMEOUT_S)):
        while True:
            try:
                if kind == "unix":
                    return (await loop.create_unix_connection(factory, where))[1]
                return (await loop.create_connection(factory, host, int(port)))[1]
            except OSError as error:
                # EAGAIN: a Unix socket's queue of connections is full just now.
                if error.errno != errno.EAGAIN or loop.time() > busy_until:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_BUSY_PAUSE_S)


def unconnected(loop: asyncio.AbstractEventLoop, deadline: float) -> Broken:
    """What `connect`'s failure means to who waits for an answer."""
    return Broken.TIMEOUT if loop.time() > deadline - _CLOCK_TICK_S else Broken.UNREACHABLE


def sweep(connections: set[Open], now: float) -> None:
    """Ends exchanges whose time is over and connections that were idle for long. Called a few times a second.

    One timer for all instead of one for each request: it costs an invocation nothing.
    """
    for connection in list(connections):
        connection.expire(now)
