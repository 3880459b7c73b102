"""The front of the port: what a connection wants is told by its first bytes.

Ordinary requests go to the HTTP server as if nothing had been between. `CONNECT host:443` is for the SageMaker SDKs,
which reach some of AWS's hosts at fixed names whatever endpoint is set, so the port is their HTTPS proxy as well:

- the caller must present the proxy token of `clary env`, else 407: other people on this machine get no proxy;
- for AWS's hosts TLS ends here, under our own authority, and the requests inside are served as usual;
- other hosts are tunnelled to (`clary.gateway.tunnels`).

A refusal carries its words in the status line too, because that is what HTTP clients show of a proxy's answer.
"""

import asyncio
import hmac
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger
from ssl import SSLContext
from typing import cast

from clary import certificates
from clary.gateway.tunnels import PORT, Refused, Tunnels
from clary.links.upstream_proxy import OWN_USER
from clary.wire.connection import has_unread

log = getLogger(__name__)

OPENING_S = 15.0  # until a connection has said what it wants
HANDSHAKE_S = 15.0
FAREWELL_S = 1.0  # for the client's part of the end of TLS, which most never send
_LONGEST_HEAD = 16 << 10
_DRAIN_LOOK_S = 0.05
_TICK_S = 1.0

_CONNECT = b"CONNECT "
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+):(\d{1,5})")

Contexts = Callable[[str], SSLContext | None]
"""The TLS context for a public host; None when no certificate covers it. Raises OSError without certificates."""


class Front:
    """Makes the protocol of each accepted connection."""

    def __init__(
        self,
        plain: Callable[[], asyncio.Protocol],
        inside: Callable[[], asyncio.Protocol],
        token: str,
        contexts: Contexts,
        tunnels: Tunnels,
    ) -> None:
        self.plain = plain
        self.inside = inside
        self.contexts = contexts
        self.tunnels = tunnels
        self.loop = asyncio.get_running_loop()
        self.openings: dict[_Opening, float] = {}  # with their deadlines, the nearest first
        self.tasks: set[asyncio.Task[None]] = set()
        self._expected = b"Basic " + b64encode(f"{OWN_USER}:{token}".encode())
        self._ticker = self.loop.call_later(_TICK_S, self._tick)

    def connection(self) -> asyncio.Protocol:
        return _Opening(self)

    async def drain(self, quiet_s: float, grace_s: float) -> None:
        """Waits for connections that have not said yet what they want, at most `quiet_s` each, and for tunnels."""
        now = self.loop.time()
        self.openings.update(
            {opening: min(deadline, now + quiet_s) for opening, deadline in self.openings.items()}
        )
        while self._is_used and self.loop.time() < now + grace_s:  # noqa: ASYNC110 three things end, each its way
            await asyncio.sleep(_DRAIN_LOOK_S)

    def close(self) -> None:
        """Ends what has not begun, and every tunnel. Requests under way are the servers'."""
        self._ticker.cancel()
        for opening in list(self.openings):
            opening.close()
        for task in self.tasks:
            task.cancel()
        self.tunnels.close()

    def admits(self, authorization: bytes) -> bool:
        return hmac.compare_digest(authorization, self._expected)

    @property
    def _is_used(self) -> bool:
        return bool(self.openings or self.tasks or self.tunnels.are_open)

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(_TICK_S, self._tick)  # whatever becomes of this one
        now = self.loop.time()
        for opening, deadline in list(self.openings.items()):
            if deadline > now:
                break
            opening.expire()
        self.tunnels.sweep(now)


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT request."""

    host: str
    port: int
    authorization: bytes


class _Opening(asyncio.Protocol):
    """A connection until it has said what it wants."""

    __slots__ = ("_front", "_seen", "_task", "_transport")

    def __init__(self, front: Front) -> None:
        self._front = front
        self._seen = b""
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._front.openings[self] = self._front.loop.time() + OPENING_S

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.openings.pop(self, None)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        seen = self._seen = self._seen + data if self._seen else data
        if not seen.startswith(_CONNECT):
            if not _CONNECT.startswith(seen):
                self._hand_over(seen)
        elif b"\r\n\r\n" in seen:
            self._connect(seen)
        elif len(seen) > _LONGEST_HEAD:
            self._refuse(431, "The request's head is too large.")

    def close(self) -> None:
        self._transport.close()

    def expire(self) -> None:
        """Its time is over, unless it has just said something that this gateway has not come to read."""
        if not has_unread(self._transport):
            self.close()

    def _hand_over(self, seen: bytes) -> None:
        self._front.openings.pop(self, None)
        transport, protocol = self._transport, self._front.plain()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(seen)

    def _connect(self, seen: bytes) -> None:
        self._front.openings.pop(self, None)
        try:
            request = parse_connect(seen)
            self._admit(request)
        except Refused as refusal:
            self._refuse(refusal.status, str(refusal))
            return
        self._transport.pause_reading()
        self._task = self._front.loop.create_task(self._answer(request.host))
        self._front.tasks.add(self._task)
        self._task.add_done_callback(self._front.tasks.discard)

    def _admit(self, request: Connect) -> None:
        if not self._front.admits(request.authorization):
            raise Refused(407, "The proxy wants the token that `clary env` prints, in HTTPS_PROXY.")
        if request.port != PORT:
            raise Refused(403, f"The proxy leads to port {PORT} only, not to {request.port}.")

    async def _answer(self, host: str) -> None:
        try:
            if certificates.is_public(host):
                await self._end_tls(self._context(host))
            else:
                far = await self._front.tunnels.reach(host)
                joined = self._front.tunnels.join(self._transport, far)
                self._transport.write(_ESTABLISHED)
                await joined
                if not self._transport.is_closing():
                    self._transport.resume_reading()
        except Refused as refusal:
            self._refuse(refusal.status, str(refusal))
        except OSError as error:  # either side has gone
            log.info("a connection through the proxy failed", extra={"host": host, "error": str(error)})
            self._transport.abort()

    def _context(self, host: str) -> SSLContext:
        try:
            context = self._front.contexts(host)
        except OSError as error:
            raise Refused(
                503, f"The certificates cannot be read ({error.strerror}); run clary up again."
            ) from error
        if context is None:
            raise Refused(
                403, f"There is no certificate for {host} here: it is no host that this server stands for."
            )
        return context

    async def _end_tls(self, context: SSLContext) -> None:
        self._transport.write(_ESTABLISHED)
        early = _Early()
        transport = await self._front.loop.start_tls(
            self._transport,
            early,
            context,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=FAREWELL_S,
        )
        if transport is not None:
            early.hand_over(transport, self._front.inside())

    def _refuse(self, status: int, message: str) -> None:
        log.info("the proxy refused a connection", extra={"status": status, "reason": message})
        if self._transport.is_closing():
            return
        body = f"{message}\n".encode()
        words = message.encode("ascii", "replace")
        challenge = b'proxy-authenticate: Basic realm="clary"\r\n' if status == 407 else b""
        self._transport.write(
            b"HTTP/1.1 %d %b\r\n%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, words, challenge, len(body), body)
        )
        self._transport.close()


class _Early(asyncio.Protocol):
    """Takes what comes between the end of a handshake and the moment the HTTP server has the connection."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._is_lost = False

    def data_received(self, data: bytes) -> None:
        self._data.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        if self._is_lost:
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._data:
            protocol.data_received(b"".join(self._data))


def parse_connect(seen: bytes) -> Connect:
    """The request in a complete head. Raises Refused."""
    head, _, rest = seen.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, _, target = line.partition(" ")
    authority, _, version = target.partition(" ")
    found = _AUTHORITY.fullmatch(authority.lower())
    if method != "CONNECT" or version not in ("HTTP/1.1", "HTTP/1.0") or found is None:
        raise Refused(400, "The proxy understands CONNECT host:443 only.")
    if rest:
        raise Refused(400, "Nothing may follow a CONNECT before it is answered.")
    said = [value.strip() for name, _, value in (field.partition(":") for field in fields)
            if name.lower() == "proxy-authorization"]  # fmt: skip
    if len(said) > 1:
        raise Refused(400, "The header proxy-authorization stands twice.")
    return Connect(
        found[1].strip("[]").rstrip("."), int(found[2]), said[0].encode("latin-1") if said else b""
    )
