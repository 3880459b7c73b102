"""One HTTP/1.1 connection from the server's side: parses, keeps the order, applies the limits. Its rules:

- requests of a connection are answered in the order they came, one at a time;
- what is ambiguous is refused: two lengths, a transfer coding other than chunked, a repeated header that
  decides identity or framing (llhttp refuses bare line feeds and folded headers itself);
- nobody is waited for without end: heads, bodies, idle connections and unread answers have their times;
- neither side is buffered without end: reading stops while a body or an answer is not taken;
- an answer given before the whole request was read ends the connection, but only after the client had time
  to read it.
"""

import asyncio
import contextlib
import logging
import select
import sys
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

import httptools

from clary.wire.exchange import BodyBroken, ConnectionLost, Exchange
from clary.wire.heads import Head

if TYPE_CHECKING:
    from clary.wire.http import HttpServer

log = logging.getLogger(__name__)

_SINGULAR = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"content-type",
        b"expect",
        b"x-amz-date",
        b"x-amz-content-sha256",
        b"x-amz-security-token",
        b"x-amz-target",
        b"x-clary-identity",
        b"x-clary-request-id",
    )
)

_NEVER = float("inf")


class _Refused(Exception):
    """Raised inside the parser's callbacks to stop it; carries status and message."""


class HttpConnection(asyncio.Protocol):
    """One connection, as asyncio and httptools call it."""

    __slots__ = (
        "_advancing",
        "_broken",
        "_buffered",
        "_chunk_bytes",
        "_current",
        "_drained",
        "_head_bytes",
        "_headers",
        "_incoming",
        "_is_between",
        "_is_reading",
        "_lingers",
        "_parser",
        "_peer_ended",
        "_server",
        "_target",
        "_transport",
        "_waiting",
        "deadline",
        "is_congested",
        "is_lost",
        "loop",
        "speaks_chunked",
    )

    def __init__(self, server: "HttpServer") -> None:
        self.loop = server.loop
        self.deadline = server.now + server.limits.head_s
        self.is_congested = False
        self.is_lost = False
        self.speaks_chunked = True
        self._server = server
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0  # of a head that is not complete
        self._chunk_bytes = 0  # of what is being parsed
        self._is_between = True  # the parser is before the first byte of a request
        self._incoming: Exchange | None = None  # whose body the parser is in
        self._current: Exchange | None = None  # whose answer is due
        self._waiting: deque[Exchange] = deque()  # pipelined behind it
        self._broken: tuple[int, str] | None = None  # why nothing more is parsed
        self._is_reading = True
        self._lingers = False
        self._peer_ended = False
        self._advancing = False
        self._buffered = 0
        self._drained: list[asyncio.Future[None]] = []

    @property
    def is_stopping(self) -> bool:
        return self._server.is_stopping

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        if self._server.is_stopping:
            self.let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._server.forget(self)
        del self._parser  # it holds this object in turn
        self._release_drained()
        for exchange in (self._current, *self._waiting, self._incoming):
            if exchange is not None:
                exchange.lose()
        self._current = self._incoming = None
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._lingers or self._broken is not None:
            return
        if self._is_between and self._current is None and not self.is_congested:
            usual = self._server.usual.read(data)
            if usual is not None:
                self._current = exchange = Exchange(self, usual[0], True, False, usual[1])
                self.deadline = _NEVER
                self._handle(exchange)
                return
        if self._incoming is None and not self._target and not self.is_congested:
            self.deadline = self._server.now + self._server.limits.head_s
        self._chunk_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The offer is not taken: the request counts as an ordinary one, what follows it does not.
            self._stop_parsing(None)
        except httptools.HttpParserCallbackError as error:
            refused = error.__context__
            if not isinstance(refused, _Refused):
                raise
            self._stop_parsing(refused.args)
        except httptools.HttpParserError as error:
            self._stop_parsing((400, f"The request is not well-formed HTTP: {error}"))
        else:
            if self._incoming is not None:
                if self._incoming.awaits_body and not self.is_congested:
                    self.deadline = self._server.now + self._server.limits.body_s
            elif self._target or self._headers:
                self._head_bytes += len(data)
                if self._head_bytes > self._server.limits.head_bytes:
                    self._stop_parsing((431, "The request's head is too large."))

    def eof_received(self) -> bool:
        self._peer_ended = True
        incomplete = self._incoming is not None or bool(self._target)
        last = self._waiting[-1] if self._waiting else self._current
        if self._lingers or incomplete or last is None:
            return False
        last.keep_alive = False
        return True  # a client that has only stopped sending still gets its answers

    def pause_writing(self) -> None:
        self.is_congested = True
        self._buffered = self._transport.get_write_buffer_size()
        self.deadline = self._server.now + self._server.limits.write_s
        self.update_reading()

    def resume_writing(self) -> None:
        self.is_congested = False
        self.deadline = _NEVER
        self._release_drained()
        if self._current is not None and self._current.on_writable is not None:
            self._current.on_writable()
        if self._incoming is not None and self._incoming.awaits_body:
            self.await_body()
        self._advance()

    # -- httptools' side

    def on_message_begin(self) -> None:
        self._is_between = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _SINGULAR:
                raise _Refused(400, f"The header {name.decode('latin-1')} stands twice.")
            headers[name] += b"," + value.rstrip()
        else:
            headers[name] = value.rstrip()
            if len(headers) > self._server.limits.headers:
                raise _Refused(431, "The request has too many headers.")

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        target = self._target
        self._headers = {}
        if self._head_bytes + self._chunk_bytes > self._server.limits.head_bytes:
            self._check_size(headers, len(target))
        self._head_bytes = 0
        if target[:1] != b"/":
            target = _origin_form(target)
        keep_alive = parser.should_keep_alive()
        if not keep_alive or b"connection" in headers:  # else it is 1.1 for certain
            keep_alive = self._check_version(parser.get_http_version()) and keep_alive
        if b"transfer-encoding" in headers and (
            headers[b"transfer-encoding"].lower() != b"chunked" or b"content-length" in headers
        ):
            raise _Refused(400, "Only the transfer coding chunked is understood, and no length beside it.")
        expects = b"expect" in headers
        if expects and headers[b"expect"].lower() != b"100-continue":
            raise _Refused(417, "The only expectation understood is 100-continue.")
        exchange = Exchange(self, Head(parser.get_method(), target, headers), keep_alive, expects)
        self._incoming = exchange
        if not self.is_congested:
            self.deadline = _NEVER
        if self._current is None and not self.is_congested:
            self._current = exchange
            self._handle(exchange)
        else:
            self._waiting.append(exchange)
            self.update_reading()

    def on_body(self, data: bytes) -> None:
        exchange = self._incoming
        assert exchange is not None
        exchange.receive(data)

    def on_message_complete(self) -> None:
        exchange = self._incoming
        assert exchange is not None
        self._incoming = None
        self._is_between = True
        self._target = b""
        if self._headers:
            self._headers = {}  # trailers: nobody here trusts them
        if not self.is_congested:
            self.deadline = _NEVER
        exchange.finish_request()
        if exchange.ended and exchange is self._current:
            self._current = None
            self._advance()

    # -- what exchanges ask of it

    def send(self, data: bytes) -> None:
        if not self.is_lost:
            self._transport.write(data)

    @property
    def date_line(self) -> bytes:
        return self._server.date_line

    async def drain(self) -> None:
        if self.is_congested and not self.is_lost:
            drained = self.loop.create_future()
            self._drained.append(drained)
            await drained

    def await_body(self) -> None:
        """The client is expected to send: its time runs."""
        self.update_reading()
        if not self.is_congested:
            self.deadline = self._server.now + self._server.limits.body_s

    def update_reading(self) -> None:
        """Reads from the client exactly while there is room for what comes."""
        incoming = self._incoming
        wants = not (
            self._waiting
            or (self.is_congested and incoming is None)
            or (incoming is not None and incoming.holds_too_much)
        )
        if wants == self._is_reading or self.is_lost or self._peer_ended or self._transport.is_closing():
            return
        self._is_reading = wants
        if wants:
            self._transport.resume_reading()
            if incoming is not None and incoming.awaits_body and not self.is_congested:
                self.deadline = self._server.now + self._server.limits.body_s
        else:
            self._transport.pause_reading()
            if not self.is_congested:
                self.deadline = _NEVER

    def answered(self, exchange: Exchange) -> None:
        """The answer is written. Goes on with the next request, or closes."""
        if self.is_lost:
            return
        if not exchange.keep_alive:
            self._close(gently=not exchange.complete)
        elif exchange.complete:
            self._current = None
            if self._waiting or not self._is_reading or self._broken is not None:
                self._advance()
            elif not self.is_congested:
                self.deadline = self._server.now + self._server.limits.idle_s
        else:
            exchange.fail(BodyBroken("The request is already answered."))
            self.update_reading()
            self.deadline = self._server.now + self._server.limits.linger_s

    def abort(self) -> None:
        if not self.is_lost:
            self._transport.abort()

    # -- times

    def expire(self) -> None:
        """Its deadline is over: what was waited for did not come."""
        if self.is_congested:
            size = self._transport.get_write_buffer_size()
            if size < self._buffered:
                self._buffered = size
                self.deadline = self._server.now + self._server.limits.write_s
            else:
                self._transport.abort()
        elif self._lingers or (self._current is None and not self._target and self._incoming is None):
            if self._lingers or self._peer_ended or not has_unread(self._transport):
                self._transport.close()
        elif self._incoming is not None and not self._incoming.ended and self._incoming.awaits_body:
            self._stop_parsing((408, "The request's body did not come in time."))
        else:
            self._stop_parsing((408, "The request did not come in time."))

    def let_go(self) -> None:
        """The server stops: closes when idle, after the quiet time that the server grants."""
        if self._current is not None or self._waiting or not self._is_between or self._transport.is_closing():
            return
        if self._server.quiet_s:
            self.deadline = min(self.deadline, self.loop.time() + self._server.quiet_s)
        elif not has_unread(self._transport):  # else it closes with the answer to that
            self._transport.close()

    # -- inside

    def _handle(self, exchange: Exchange) -> None:
        try:
            coroutine = self._server.handler(exchange)
        except Exception:  # noqa: BLE001 -- the boundary: whatever a handler did, the client gets an answer
            self.failed(exchange)
            return
        if coroutine is not None:
            task = self.loop.create_task(self._run(exchange, coroutine))
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)

    async def _run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except ConnectionLost:
            self.abort()
        except Exception:  # noqa: BLE001 -- as above
            self.failed(exchange)

    def failed(self, exchange: Exchange) -> None:
        """Called where an exception is handled: logs it and answers, or breaks off a begun answer."""
        log.error(
            "handler failed", exc_info=sys.exc_info(), extra={"target": exchange.head.path.decode("latin-1")}
        )
        if exchange.is_started:
            self.abort()
        else:
            exchange.respond(500, *self._server.refusal(500, "The server failed to answer."))

    def _advance(self) -> None:
        """Takes up what waits behind an answered request."""
        if self._advancing:
            return
        self._advancing = True
        while self._current is None and self._waiting and not self.is_congested and not self.is_lost:
            exchange = self._waiting.popleft()
            self._current = exchange
            self._handle(exchange)
            if exchange.ended and exchange.complete and self._current is exchange:
                self._current = None
        self._advancing = False
        if self.is_lost:
            return
        self.update_reading()
        if self._current is None and not self._waiting:
            if self._broken is not None:
                self._refuse(*self._broken)
            elif self._peer_ended or self.is_stopping:
                self._close(gently=False)
            elif self._incoming is None and not self._target and not self.is_congested:
                self.deadline = self._server.now + self._server.limits.idle_s

    def _stop_parsing(self, reason: tuple[Any, ...] | None) -> None:
        """Nothing more is understood on this connection; what was understood before is still answered."""
        incoming, self._incoming = self._incoming, None
        if reason is None:
            last = self._waiting[-1] if self._waiting else self._current
            if last is None:
                self._close(gently=True)
            else:
                last.keep_alive = False
            self._broken = (400, "This server speaks no other protocol.")
            return
        self._broken = (reason[0], reason[1])
        if incoming is not None and not incoming.complete:
            if incoming.is_started:
                self.abort()
                return
            incoming.keep_alive = False
            incoming.fail(BodyBroken(reason[1], reason[0]))
            if incoming is self._current or incoming in self._waiting:
                return  # its handler answers
        if self._current is None and not self._waiting:
            self._refuse(*self._broken)

    def _refuse(self, status: int, message: str) -> None:
        if self._transport.is_closing() or self._lingers:
            return
        exchange = Exchange(self, Head(b"GET", b"/", {}), keep_alive=False, expects=False)
        exchange.respond(status, *self._server.refusal(status, message))

    def _close(self, *, gently: bool) -> None:
        """Closes. Gently: says that no more is sent, and drops what still comes, so that the client does not
        lose the answer to a reset."""
        self._current = None
        self._waiting.clear()
        if gently and not self._peer_ended and self._transport.can_write_eof():
            self._lingers = True
            self.deadline = self._server.now + self._server.limits.linger_s
            if not self._is_reading:
                self._is_reading = True
                self._transport.resume_reading()
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        else:
            self._transport.close()

    def _release_drained(self) -> None:
        for future in self._drained:
            if not future.done():
                future.set_result(None)
        self._drained.clear()

    def _check_version(self, version: str) -> bool:
        if version == "1.1":
            return True
        self.speaks_chunked = False
        if version != "1.0":
            raise _Refused(505, "Only HTTP 1.0 and 1.1 are spoken here.")
        return False  # 1.0 with keep-alive is not worth its rules

    def _check_size(self, headers: dict[bytes, bytes], rest: int) -> None:
        if sum(map(len, headers)) + sum(map(len, headers.values())) + rest > self._server.limits.head_bytes:
            raise _Refused(431, "The request's head is too large.")


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether something has come that was not read yet: closing now would reset its sender."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return False  # it has ended, of which its protocol hears in the next turn
    poll = select.poll()
    poll.register(found.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _origin_form(target: bytes) -> bytes:
    """`http://host/path` as a client behind a proxy setting sends it, without scheme and host."""
    for scheme in (b"http://", b"https://"):
        if target.lower().startswith(scheme):
            rest = target[len(scheme) :]
            _, slash, path = rest.partition(b"/")
            return slash + path if slash else b"/"
    raise _Refused(400, "The request's target must begin with a slash.")
