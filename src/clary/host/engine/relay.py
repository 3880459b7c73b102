"""Passes bytes between two connections, both ways, reading nothing of them. Runs on the runner's loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[asyncio.Transport | None]]
"""Opens the other connection with a protocol from this factory; None when nobody answers there."""


class Incoming(asyncio.Protocol):
    """One connection that came in. What arrives before the other is open waits; so does a sender that is too fast."""

    def __init__(self, dial: Dial, refusal: Callable[[], bytes]) -> None:
        """`refusal`: what a caller is told when nobody answers behind."""
        self._dial = dial
        self._refusal = refusal
        self._waiting: list[bytes] = []
        self._asked = asyncio.Event()
        self._ended = False
        self._other: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._task = asyncio.get_running_loop().create_task(self._open())

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)
        else:
            self._waiting.append(data)
            self._asked.set()
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._asked.set()
        if self._other is not None:
            self._other.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.resume_reading()

    async def _open(self) -> None:
        other = await self._dial(lambda: _Outgoing(self.transport))
        if other is None:
            # Not before it has asked: a caller whose writing fails does not look for an answer.
            await self._asked.wait()
            self.transport.write(self._refusal())
            self.transport.close()
            return
        self._other = other
        other.writelines(self._waiting)
        self._waiting.clear()
        if self._ended:
            other.write_eof()
        else:
            self.transport.resume_reading()


class _Outgoing(asyncio.Protocol):
    """The connection behind."""

    def __init__(self, other: asyncio.Transport) -> None:
        self._other = other

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._other.close()

    def pause_writing(self) -> None:
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()
