"""One request and its answer, as a handler of the HTTP server sees them.

A handler is called as soon as the head is complete. It takes the body in one of these ways, or not at all:

    collect(limit, done, refused)     whole, by callbacks: no task for a request, the gateway's hot path
    await read_body(limit)            whole, for coroutines
    stream(on_data, on_end, on_error) as it comes, by callbacks; `pause` and `resume` are the back-pressure
    async for part in parts()         as it comes, for coroutines: the client is read as fast as this is

and answers whole (`respond`, one write) or in parts (`start`, then `write` or `push`, then `end`).
Everything runs on the loop's thread. `100 Continue` is sent when the body is first wanted, so an early refusal
costs no upload.

    BodyError
    ├── BodyTooLarge      more than the limit
    ├── BodyBroken        its framing is wrong or it stopped coming; `status` says what to answer
    └── ConnectionLost    the client is gone; answers are dropped
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from clary.wire.heads import STATUS_LINES, Head

if TYPE_CHECKING:
    from clary.wire.connection import HttpConnection

HELD_BYTES = 256 << 10
"""How much of a body is held before the client is no longer read."""

_SMALL = 64 << 10
"""Below this, head and body leave as one piece; an unread rest of this size is read and dropped."""

_UNWANTED, _COLLECT, _STREAM, _PUSH, _DISCARD = range(5)

_NO_BODY = frozenset((204, 304))

_LENGTHS = 1024
_LENGTH_LINES = [b"content-length: %d\r\n" % length for length in range(_LENGTHS)]


class BodyError(Exception):
    """The request's body cannot be had."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BodyTooLarge(BodyError):
    """It is longer than the handler takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's body is longer than {limit} bytes.", 413)


class BodyBroken(BodyError):
    """Its framing is wrong, or it stopped coming."""


class ConnectionLost(BodyError):
    """The client is gone."""


class Exchange:
    """A request under way.

    `on_lost` is called when the client goes before the answer has ended, `on_writable` when it has taken what
    made `is_congested` true.
    """

    # What most exchanges never change is a default of the class: it costs a request nothing.
    ended = False  # the whole answer has been written
    on_lost: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    _mode = _UNWANTED
    _size = 0
    _error: BodyError | None = None
    _waiter: "asyncio.Future[None] | None" = None
    _is_paused = False
    _started = False
    _chunked = False
    _limit: int
    _collected: "Callable[[Exchange, bytes], None]"
    _refused: "Callable[[Exchange, BodyError], None]"
    _on_data: Callable[[bytes], None]
    _on_end: Callable[[], None]
    _on_error: Callable[[BodyError], None]

    def __init__(
        self,
        connection: "HttpConnection",
        head: Head,
        keep_alive: bool,
        expects: bool,
        body: bytes | None = None,
    ) -> None:
        """`body` when all of it has come with the head."""
        self.head = head
        self.keep_alive = keep_alive
        self.complete = body is not None  # the whole request has been received
        self._connection = connection
        self._expects = expects
        self._parts: list[bytes] = [body] if body else []
        if body:
            self._size = len(body)

    # -- the request's body

    def collect(
        self,
        limit: int,
        done: "Callable[[Exchange, bytes], None]",
        refused: "Callable[[Exchange, BodyError], None]",
    ) -> None:
        """Calls one of them, perhaps at once: `done` with the whole body, or `refused` with the reason."""
        if self.complete and self._error is None and self._size <= limit:
            done(self, self._take())
            return
        length = self.head.headers.get(b"content-length")
        if self._error is not None or (length is not None and int(length) > limit) or self._size > limit:
            self._mode = _DISCARD
            self._parts = []
            self._size = 0
            refused(self, self._error or BodyTooLarge(limit))
            return
        self._limit = limit
        self._collected = done
        self._refused = refused
        self._mode = _COLLECT
        self._want()

    async def read_body(self, limit: int) -> bytes:
        """The whole body. Raises BodyError."""
        future: asyncio.Future[bytes] = self._connection.loop.create_future()

        def done(_: Exchange, body: bytes) -> None:
            if not future.done():
                future.set_result(body)

        def refused(_: Exchange, error: BodyError) -> None:
            if not future.done():
                future.set_exception(error)

        self.collect(limit, done, refused)
        return await future

    def stream(
        self,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_error: Callable[[BodyError], None],
    ) -> None:
        """Calls `on_data` for each part (perhaps at once), then one of the others."""
        self._on_data = on_data
        self._on_end = on_end
        self._on_error = on_error
        self._is_paused = False
        self._mode = _PUSH
        if self._parts:
            self._guarded(on_data, self._take())
        if self._error is not None:
            self._mode = _DISCARD
            self._guarded(on_error, self._error)
        elif self.complete:
            self._mode = _DISCARD
            self._guarded(on_end)
        else:
            self._want()

    def pause(self) -> None:
        """Stops `on_data` soon: the client is no longer read."""
        self._is_paused = True
        self._connection.update_reading()

    def resume(self) -> None:
        self._is_paused = False
        if self._mode == _PUSH:
            self._connection.await_body()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises BodyError instead of ending early."""
        self._mode = _STREAM
        self._want()
        while True:
            if self._parts:
                data = self._take()
                self._connection.update_reading()
                yield data
            elif self._error is not None:
                raise self._error
            elif self.complete:
                return
            else:
                self._waiter = self._connection.loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None

    def _want(self) -> None:
        if self._expects:
            self._expects = False
            if not self.complete and not self._parts:
                self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._connection.await_body()

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._size = 0
        return data

    # -- what the connection tells it

    @property
    def holds_too_much(self) -> bool:
        """Whether the client must wait until the handler takes what is here."""
        if self._mode == _PUSH:
            return self._is_paused
        return self._size > HELD_BYTES and (self._mode == _UNWANTED or self._mode == _STREAM)

    @property
    def awaits_body(self) -> bool:
        """Whether somebody waits for the client to send."""
        return not self.complete and self._mode != _UNWANTED

    def receive(self, data: bytes) -> None:
        self._expects = False  # it sent without waiting
        if self._mode == _DISCARD:
            return
        if self._mode == _PUSH:
            self._guarded(self._on_data, data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._mode == _COLLECT:
            if self._size > self._limit:
                self.fail(BodyTooLarge(self._limit))
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._size > HELD_BYTES:
            self._connection.update_reading()

    def finish_request(self) -> None:
        self.complete = True
        if self._mode == _COLLECT:
            self._mode = _DISCARD
            self._guarded(self._collected, self, self._take())
        elif self._mode == _PUSH:
            self._mode = _DISCARD
            self._guarded(self._on_end)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: BodyError) -> None:
        """No more of the body will come (or be taken)."""
        self._error = error
        mode, self._mode = self._mode, _DISCARD
        self._parts = []
        self._size = 0
        if mode == _COLLECT:
            self._guarded(self._refused, self, error)
        elif mode == _PUSH:
            self._guarded(self._on_error, error)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _guarded(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001 -- the boundary: whatever a handler did, the client gets an answer
            self._connection.failed(self)

    def lose(self) -> None:
        """The connection is gone."""
        if not self.complete and self._error is None:
            self.fail(ConnectionLost("the client closed the connection"))
        if self.on_lost is not None and not self.ended:
            self._guarded(self.on_lost)

    # -- the answer

    @property
    def is_started(self) -> bool:
        """Whether the answer has begun: another can no longer be given."""
        return self._started

    def respond(
        self, status: int, fields: bytes = b"", body: bytes = b"", *, length: int | None = None
    ) -> None:
        """The whole answer at once. `fields` are header lines (`encode_fields`) without length, date, connection.

        `length` is what HEAD tells about a body that is not sent. Nothing happens when the client is gone.
        """
        self._begin()
        connection = self._connection
        if status in _NO_BODY:
            length_line, body = b"", b""
        else:
            length = len(body) if length is None else length
            length_line = _LENGTH_LINES[length] if length < _LENGTHS else b"content-length: %d\r\n" % length
            if self.head.method == b"HEAD":
                body = b""
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if len(body) <= _SMALL:
            connection.send(
                b"".join((STATUS_LINES[status], fields, connection.date_line, length_line, end, body))
            )
        else:
            connection.send(b"".join((STATUS_LINES[status], fields, connection.date_line, length_line, end)))
            connection.send(body)
        self.ended = True
        connection.answered(self)

    def start(self, status: int, fields: bytes = b"", *, length: int | None = None) -> None:
        """Begins an answer whose body follows by `write` and `end`; chunked when `length` is not known."""
        self._begin()
        pieces = [STATUS_LINES[status], fields, self._connection.date_line]
        if status not in _NO_BODY:
            if length is not None:
                pieces.append(b"content-length: %d\r\n" % length)
            elif self._connection.speaks_chunked:
                pieces.append(b"transfer-encoding: chunked\r\n")
                self._chunked = self.head.method != b"HEAD"
            else:
                self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        pieces.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._connection.send(b"".join(pieces))

    def push(self, data: bytes) -> bool:
        """A part of the body, without waiting. False says: hold the next one until `drain` has returned."""
        if data and self.head.method != b"HEAD":
            if self._chunked:
                self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._connection.send(data)
        return not self._connection.is_congested

    async def write(self, data: bytes) -> None:
        """A part of the body, when the client has taken enough of the ones before. Raises ConnectionLost."""
        if not self.push(data):
            await self._connection.drain()
        if self._connection.is_lost:
            raise ConnectionLost("the client closed the connection")

    @property
    def is_congested(self) -> bool:
        """Whether the client has yet to take much of what was written."""
        return self._connection.is_congested

    async def drain(self) -> None:
        await self._connection.drain()

    def end(self) -> None:
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        self.ended = True
        self._connection.answered(self)

    def abort(self) -> None:
        """Breaks the connection, so that the client does not take half an answer for a whole one."""
        self.on_lost = None  # it is not the client who goes
        self._connection.abort()

    def _begin(self) -> None:
        if self._started:
            raise RuntimeError("the request is already answered")
        self._started = True
        is_cut_short = not self.complete and (
            self._expects or self._error is not None or not self._rest_is_small()
        )
        if is_cut_short or self._connection.is_stopping:
            self.keep_alive = False

    def _rest_is_small(self) -> bool:
        headers = self.head.headers
        return b"transfer-encoding" not in headers and int(headers.get(b"content-length", b"0")) <= _SMALL
