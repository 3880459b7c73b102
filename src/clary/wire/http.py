"""An HTTP/1.1 server on asyncio and httptools: the front door of the gateway, and control's wire server.

One protocol object for each connection (`clary.wire.connection`, which holds the rules), no task unless the
handler is a coroutine function. It leaves the meaning of requests to its handler (`clary.wire.exchange`).
"""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from clary.wire.connection import HttpConnection
from clary.wire.exchange import Exchange
from clary.wire.usual import UsualRequests

Handler = Callable[[Exchange], Coroutine[Any, Any, None] | None]
"""Called when a head is complete. A coroutine becomes a task; a plain function answers by callbacks."""

Refusal = Callable[[int, str], tuple[bytes, bytes]]
"""Header lines and body for an answer that the server itself must give: malformed, too large, failed."""


def plain_refusal(status: int, message: str) -> tuple[bytes, bytes]:
    return b"content-type: text/plain; charset=utf-8\r\n", message.encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take. Times in seconds."""

    head_bytes: int = 64 << 10
    headers: int = 200
    head_s: float = 15.0  # from the first byte of a head to its last
    body_s: float = 60.0  # without any progress of a body that is waited for
    write_s: float = 60.0  # without any progress of an answer that the client does not read
    idle_s: float = 300.0  # between two requests; longer than clients keep a connection
    linger_s: float = 5.0  # for reading an early answer while the rest of the request is dropped
    tick_s: float = 1.0  # how often the times are looked at


class HttpServer:
    """Connections and their times. `connection` is the protocol factory for whoever accepts."""

    def __init__(
        self, handler: Handler, *, limits: Limits | None = None, refusal: Refusal = plain_refusal
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.refusal = refusal
        self.loop = asyncio.get_running_loop()
        self.now = (
            self.loop.time()
        )  # as of the last tick, like the next: near enough for time-outs and clients
        self.date_line = _date_line()
        self.usual = UsualRequests(most_headers=self.limits.headers, most_bytes=self.limits.head_bytes)
        self.is_stopping = False
        self.quiet_s = 0.0  # a stopping server: how long idle connections stay open
        self.connections: set[HttpConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._all_closed: asyncio.Future[None] | None = None
        self._ticker = self.loop.call_later(self.limits.tick_s, self._tick)

    def connection(self) -> HttpConnection:
        return HttpConnection(self)

    async def listen(self, sock: socket.socket, *, backlog: int = 1024) -> None:
        """Accepts from a bound socket, which may be shared with other processes."""
        self._listeners.append(await self.loop.create_server(self.connection, sock=sock, backlog=backlog))

    async def listen_unix(self, path: Path, *, backlog: int = 1024) -> None:
        """Binds a Unix socket that only this user may connect to, in place of a dead one at the same path."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = path.with_name(f"{path.name}~")
        temporary.unlink(missing_ok=True)
        sock.bind(str(temporary))
        temporary.chmod(0o600)
        temporary.rename(path)
        self._listeners.append(
            await self.loop.create_unix_server(self.connection, sock=sock, backlog=backlog)
        )

    def stop_accepting(self, quiet_s: float = 0.0) -> None:
        """No new connections; idle ones close; requests under way go on and close their connections.

        With `quiet_s` an idle connection is closed only after it has been idle that long: a client that is just
        sending its next request on it gets its answer, which says that it is the last one.
        """
        self.is_stopping = True
        self.quiet_s = quiet_s
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.let_go()

    async def close(self, grace_s: float = 10.0) -> None:
        """Stops accepting, lets what is under way finish for `grace_s`, then breaks the rest off."""
        if not self.is_stopping:
            self.stop_accepting()
        if self.connections:
            self._all_closed = self.loop.create_future()
            await asyncio.wait([self._all_closed], timeout=grace_s)
        for connection in list(self.connections):
            connection.abort()
        self._ticker.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=1.0)
        for task in self.tasks:
            task.cancel()

    def forget(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        if not self.connections and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(self.limits.tick_s, self._tick)  # whatever becomes of this one
        self.now = self.loop.time()
        self.date_line = _date_line()
        for connection in list(self.connections):
            if self.now >= connection.deadline:
                connection.expire()


def _date_line() -> bytes:
    return f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
