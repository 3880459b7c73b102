"""Everything that is not a runtime operation: verified here, then passed on to control as it came.

A request whose head tells the hash of its body (or that there is none to check yet) is streamed both ways, the
faster side waiting for the slower; control verifies the body while it reads. For the others the body is read
first, because the signature covers it. Control trusts its socket, so what a client says under `x-clary-` is dropped.

Nothing is sent twice: what control has done before a connection broke is not known here, and clients repeat a 503.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from logging import getLogger
from typing import TypeVar

from clary.domain.faults import Fault, validation
from clary.gateway.answers import send_fault, unavailable
from clary.gateway.public_hosts import path_style
from clary.gateway.request_ids import RequestIds
from clary.gateway.upstream import Broken, Connection, Headers, Upstream, Waiter
from clary.wire.exchange import BodyBroken, BodyError, BodyTooLarge, ConnectionLost, Exchange
from clary.wire.heads import Head
from clary.wire.identify import Identified, identify, is_post_form
from clary.wire.sigv4 import Identity, Verifier, needs_body_hash

log = getLogger(__name__)

_T = TypeVar("_T")

NO_PROGRESS_S = 120.0  # control answers sooner, or at least moves some bytes
_HELD_ANSWER = 64 << 10

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"content-length",
    )
)
_NOT_PASSED_BACK = _HOP_BY_HOP | {b"date"}  # the server says its own

_DOWN = (
    "The control plane is not running. It is being restarted; real-time endpoints go on answering. Try again."
)


class Forwarding:
    """Passes requests on to control."""

    def __init__(
        self, control: Upstream, verifier: Verifier, request_ids: RequestIds, *, max_body_bytes: int
    ) -> None:
        self._control = control
        self._verifier = verifier
        self._request_ids = request_ids
        self._max_body_bytes = max_body_bytes

    async def answer(self, exchange: Exchange) -> None:
        head = exchange.head
        request_id = self._request_ids()
        kind = Identified("", "rest-json")
        try:
            kind = identify(head)
            body = await exchange.read_body(self._max_body_bytes) if needs_body_hash(head) else None
            sha256 = None if body is None else hashlib.sha256(body).hexdigest()
            # A form's signature stands in its body: control verifies it.
            identity = None if is_post_form(head) else self._verifier.verify(head, sha256)
            await self._pass_on(exchange, identity, request_id, body)
        except (Fault, BodyTooLarge, BodyBroken) as error:
            send_fault(exchange, _fault(error), request_id, kind)

    async def _pass_on(
        self, exchange: Exchange, identity: Identity | None, request_id: str, body: bytes | None
    ) -> None:
        head = exchange.head
        loop = asyncio.get_running_loop()
        is_pumped = body is None and _has_body(head)
        answer = _Answer(exchange, loop, is_pumped=is_pumped)
        start = _control_head(path_style(head), identity, request_id, body)
        deadline = loop.time() + NO_PROGRESS_S
        self._control.send(start + (body or b""), answer, deadline, is_head=head.method == b"HEAD")
        if is_pumped:
            await _pump(exchange, answer)
        how = await answer.done
        if how is not None:
            log.warning("control did not answer", extra={"request_id": request_id, "how": how.value})
            raise unavailable(_DOWN)


def _fault(error: Fault | BodyTooLarge | BodyBroken) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, BodyTooLarge):
        return Fault("RequestEntityTooLargeException", "The request is too large.", 413)
    return validation(f"The request body could not be read: {error}")


class _Answer(Waiter):
    """Control's answer on its way to the client. `done` says how it failed before it began, else None. `is_pumped`: the
    request's body follows its head."""

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, *, is_pumped: bool = False
    ) -> None:
        self.connection: asyncio.Future[Connection | None] = loop.create_future()
        self.done: asyncio.Future[Broken | None] = loop.create_future()
        self.takes_more = asyncio.Event()
        self.takes_more.set()
        self._exchange = exchange
        self._loop = loop
        self._is_pumped = is_pumped
        self._connection: Connection | None = None
        self._status = 0
        self._fields = b""
        self._length: int | None = None
        self._parts: list[bytes] | None = None  # of a small answer, which leaves in one piece
        exchange.on_lost = self.drop

    def on_connected(self, connection: Connection) -> None:
        if self.done.done():  # the client went before
            connection.abort()
            return
        # Said here and not where the body is sent: an early answer may come before, and would make the pool take a
        # connection on which control still waits for a body.
        connection.is_sent = not self._is_pumped
        self._connection = connection
        self._settle(self.connection, connection)

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        self._status = status
        length = [value for name, value in headers if name == b"content-length"]
        self._length = int(length[0]) if length else None
        self._fields = b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in headers if name not in _NOT_PASSED_BACK
        )
        if self._length is not None and (
            self._length <= _HELD_ANSWER or self._exchange.head.method == b"HEAD"
        ):
            self._parts = []
        else:
            self._exchange.on_writable = connection.resume_reading
            self._exchange.start(status, self._fields, length=self._length)

    def on_body(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None, "a body follows a connection"
        connection.deadline = self._loop.time() + NO_PROGRESS_S
        if self._parts is not None:
            self._parts.append(data)
        elif not self._exchange.push(data):
            connection.pause_reading()

    def on_complete(self) -> None:
        self._exchange.on_writable = None
        self._connection = None  # the pool's again
        if self._parts is not None:
            self._exchange.respond(self._status, self._fields, b"".join(self._parts), length=self._length)
        else:
            self._exchange.end()
        self._end(None)

    def on_broken(self, how: Broken) -> None:
        if self._exchange.is_started:
            self._exchange.abort()
            self._end(None)
        else:
            self._end(how)

    def on_congested(self) -> None:
        self.takes_more.clear()

    def on_writable(self) -> None:
        self.takes_more.set()

    def drop(self) -> None:
        """The client is gone: so is the reason to go on."""
        if self._connection is not None:
            self._connection.abort()
        self._end(None)

    def _end(self, how: Broken | None) -> None:
        self._settle(self.done, how)
        self._settle(self.connection, None)
        self.takes_more.set()

    @staticmethod
    def _settle(future: asyncio.Future[_T], value: _T) -> None:
        if not future.done():
            future.set_result(value)


async def _pump(exchange: Exchange, answer: _Answer) -> None:
    """The request's body, as it comes, to control; given up when control has answered already."""
    connection = await answer.connection
    if connection is None:
        return
    is_chunked = b"content-length" not in exchange.head.headers
    loop = asyncio.get_running_loop()
    try:
        async for part in exchange.parts():
            await answer.takes_more.wait()
            if answer.done.done():
                return
            connection.deadline = loop.time() + NO_PROGRESS_S
            connection.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
    except BodyError as error:
        connection.abort()
        if isinstance(error, ConnectionLost) or exchange.is_started or answer.done.done():
            return
        raise
    if is_chunked:
        connection.write(b"0\r\n\r\n")
    connection.is_sent = True


def _control_head(head: Head, identity: Identity | None, request_id: str, body: bytes | None) -> bytes:
    lines = [b"%b %b HTTP/1.1\r\n" % (head.method, head.target)]
    lines += _fields(head.headers.items())
    length = head.headers.get(b"content-length")
    if body is not None:
        lines.append(b"content-length: %d\r\n" % len(body))
    elif length is not None:
        lines.append(b"content-length: %b\r\n" % length)
    elif _has_body(head):
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"x-clary-request-id: %b\r\n" % request_id.encode())
    if identity is not None:
        lines.append(b"x-clary-identity: %b\r\n" % identity.encode())
    lines.append(b"\r\n")
    return b"".join(lines)


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name not in _HOP_BY_HOP and not name.startswith(b"x-clary-")
    ]


def _has_body(head: Head) -> bool:
    return head.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in head.headers
