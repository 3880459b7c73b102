"""Tunnels to hosts that are not AWS's: a client behind our proxy still reaches its package index.

A tunnel leads to port 443 of another machine and never back to this one: behind a proxy token lies an AWS front, not
a way to whatever listens on loopback here. Names are resolved once and the addresses that were judged are the ones
connected to. Where a proxy was configured before ours, the way is through it.
"""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address
from logging import getLogger
from typing import cast
from urllib.parse import unquote, urlsplit

from clary.links.upstream_proxy import UpstreamProxy

log = getLogger(__name__)

PORT = 443
MOST_TUNNELS = 512
IDLE_S = 900.0
_DIAL_S = 15.0
_LONGEST_ANSWER = 16 << 10

Resolve = Callable[[str], Awaitable[list[str]]]
"""The addresses of a host; none when it has none."""

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""A connected, non-blocking socket. Raises OSError."""


class Refused(Exception):
    """The proxy does not do this; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Tunnels:
    """The tunnels of one gateway. `upstream` tells the proxy that was configured before."""

    def __init__(
        self,
        upstream: Callable[[], UpstreamProxy],
        *,
        resolve: Resolve | None = None,
        dial: Dial | None = None,
    ) -> None:
        self._upstream = upstream
        self._resolve = resolve or _resolve
        self._dial = dial or _dial
        self._loop = asyncio.get_running_loop()
        self._open: set[_Pipe] = set()

    async def reach(self, host: str) -> socket.socket:
        """A connection to port 443 of the host. Raises Refused."""
        if len(self._open) >= 2 * MOST_TUNNELS:
            raise Refused(503, f"{MOST_TUNNELS} tunnels are open already.")
        addresses = await self._resolve(host)
        if _is_local_name(host) or any(is_off_limits(address) for address in addresses):
            raise Refused(403, f"{host} is this machine or link-local; the proxy does not lead there.")
        proxy = self._upstream()
        try:
            async with asyncio.timeout(_DIAL_S):
                if proxy.leads_to(host):
                    return await self._through(proxy, host)
                return await self._directly(host, addresses)
        except TimeoutError:
            raise Refused(504, f"{host} did not answer in time.") from None

    def join(self, near: asyncio.Transport, far: socket.socket) -> Awaitable[None]:
        """Connects the two, from now on."""
        return self._join(near, far)

    def sweep(self, now: float) -> None:
        """Ends what has been silent for long."""
        for pipe in list(self._open):
            if now - max(pipe.active_at, pipe.other.active_at) > IDLE_S:
                pipe.close()

    @property
    def are_open(self) -> bool:
        return bool(self._open)

    def close(self) -> None:
        for pipe in list(self._open):
            pipe.close()

    async def _join(self, near: asyncio.Transport, far: socket.socket) -> None:
        inner, outer = _Pipe(self._open, self._loop), _Pipe(self._open, self._loop)
        inner.other, outer.other = outer, inner
        near.set_protocol(inner)
        inner.connection_made(near)
        await self._loop.create_connection(lambda: outer, sock=far)
        if near.is_closing():
            outer.close()

    async def _directly(self, host: str, addresses: list[str]) -> socket.socket:
        trouble = "it has no address"
        for address in addresses:
            try:
                return await self._dial(address, PORT)
            except OSError as error:
                trouble = str(error)
        raise Refused(502, f"{host} cannot be reached: {trouble}.")

    async def _through(self, proxy: UpstreamProxy, host: str) -> socket.socket:
        url = urlsplit(proxy.url)
        if url.scheme != "http" or not url.hostname:
            raise Refused(502, f"The proxy configured before is {url.scheme}://; only http:// is understood.")
        try:
            sock = await self._dial(url.hostname, url.port or 80)
        except OSError as error:
            raise Refused(502, f"The proxy configured before cannot be reached: {error}.") from error
        try:
            await self._loop.sock_sendall(sock, _connect_request(host, url.username, url.password))
            status = await self._status(sock)
        except OSError as error:
            sock.close()
            raise Refused(502, f"The proxy configured before broke off: {error}.") from error
        except BaseException:  # a time-out or a cancellation: the socket is nobody's then
            sock.close()
            raise
        if status != b"200":
            sock.close()
            raise Refused(502, f"The proxy configured before answered {status.decode('latin-1')} for {host}.")
        return sock

    async def _status(self, sock: socket.socket) -> bytes:
        """Of the upstream proxy's answer. Read byte by byte at its end, because what follows is the tunnel's."""
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            part = await self._loop.sock_recv(sock, 1)
            if not part or len(answer) > _LONGEST_ANSWER:
                raise ConnectionError("its answer is no HTTP")
            answer += part
        return answer.partition(b" ")[2].partition(b" ")[0]


class _Pipe(asyncio.Protocol):
    """One end of a tunnel: what comes in here goes out at the other, as fast as that is read."""

    other: "_Pipe"

    def __init__(self, open_pipes: "set[_Pipe]", loop: asyncio.AbstractEventLoop) -> None:
        self.active_at = loop.time()
        self._pipes = open_pipes
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pipes.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipes.discard(self)
        self.other.close()

    def data_received(self, data: bytes) -> None:
        self.active_at = self._loop.time()
        if (sink := self.other.living) is not None:
            sink.write(data)

    def eof_received(self) -> bool:
        self._has_ended = True
        sink = self.other.living
        if sink is None or self.other._has_ended:
            return False
        sink.write_eof()
        return True

    def pause_writing(self) -> None:
        if (source := self.other.living) is not None:
            source.pause_reading()

    def resume_writing(self) -> None:
        if (source := self.other.living) is not None:
            source.resume_reading()

    @property
    def living(self) -> asyncio.Transport | None:
        """The transport while it may be used."""
        return None if self._transport is None or self._transport.is_closing() else self._transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def is_off_limits(address: str) -> bool:
    """Whether a tunnel to this address would end on this machine, or at what only this machine's link can see."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or _is_ours(str(ip))


def _is_ours(address: str) -> bool:
    """Whether an interface of this machine has the address: only then may a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _connect_request(host: str, user: str | None, password: str | None) -> bytes:
    authority = f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
    if user:
        said = b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
        lines.append(f"proxy-authorization: Basic {said}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _resolve(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


async def _dial(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    trouble: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            trouble = error
        except BaseException:  # cancelled: the socket is nobody's then
            sock.close()
            raise
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
    raise trouble
