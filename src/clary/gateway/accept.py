"""Accepting from a socket that several gateways share, so that each gets its part of the connections.

The first to wake could take everything that waits: with a burst of long-lived connections one gateway would then do
all the work of a day. So each takes only its share of what the kernel says is waiting, and leaves the rest to the
others for a moment. A single connection, the usual case, is taken at once.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from logging import getLogger

log = getLogger(__name__)

_BACKLOG = 4096
_PAUSE_S = 0.001
_TROUBLE_PAUSE_S = 0.1

# Of a listening socket, `tcpi_unacked` in Linux's `struct tcp_info` is the length of the queue.
_TCP_INFO_BYTES = 28
_QUEUE_LENGTH = struct.Struct("=24xI")


class Acceptor:
    """Accepts for one of `sharers` gateways; `factory` makes the protocol of a connection."""

    def __init__(
        self, listening: socket.socket, factory: Callable[[], asyncio.Protocol], *, sharers: int
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._sharers = sharers
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)  # may listen already; asking again does no harm
        self._loop.add_reader(listening, self._accept)

    async def close(self) -> None:
        """Accepts no more. What waits is left to the other gateways; what was accepted has its protocol afterwards."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _accept(self) -> None:
        waiting = queue_length(self._listening)
        for _ in range(-(-waiting // self._sharers) or 1):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break  # another gateway was faster, or the client has gone again
            except OSError as error:
                log.error("connections cannot be accepted", extra={"error": str(error)})
                self._pause(_TROUBLE_PAUSE_S)
                return
            task = self._loop.create_task(self._open(sock))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        if waiting > 1 and self._sharers > 1:
            self._pause(_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._paused = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening, self._accept)

    async def _open(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError as error:
            log.info("a connection broke before it was taken up", extra={"error": str(error)})
            sock.close()


def queue_length(listening: socket.socket) -> int:
    """How many connections wait to be accepted."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (length,) = _QUEUE_LENGTH.unpack(info)
    return int(length)
