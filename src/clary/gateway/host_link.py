"""The gateway's end of the host's link: the calls of `links.hosts`, without a thread.

A connection carries one call at a time, and the host gives each a thread, so there are at most so many; a call beyond
them waits for its turn. Connections that are idle are kept. One that was idle and fails says nothing about the
host, which may have been restarted since: the call is made again on a new one.
"""

import asyncio
from pathlib import Path
from typing import TypeVar

from clary.links.frames import FrameError, pack, read_frame
from clary.links.hosts import CONNECT_TIMEOUT_S, HostUnavailable, encode_call, read_answer

MOST_CALLS = 256
_MOST_IDLE = 16

T = TypeVar("T")

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HostLink:
    """Calls the host of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turns = asyncio.Semaphore(MOST_CALLS)
        self._idle: list[_Connection] = []
        self._is_closed = False

    async def call(self, operation: str, arguments: object, result: type[T], timeout_s: float) -> T:
        """The host's answer as a `result`. Raises `HostError` or `HostUnavailable`."""
        payload = pack(encode_call(operation, arguments))
        try:
            async with asyncio.timeout(timeout_s), self._turns:
                answer = await self._exchange(payload)
        except TimeoutError as error:
            raise HostUnavailable(f"the host at {self._path} did not answer in {timeout_s:g} s") from error
        except OSError as error:  # a broken frame is one, too
            raise HostUnavailable(f"no host answers at {self._path}: {error}") from error
        return read_answer(operation, answer, result)

    def close(self) -> None:
        self._is_closed = True
        self._forget_idle()

    async def _exchange(self, payload: bytes) -> bytes:
        idle = self._take_idle()
        if idle is not None:
            try:
                return await self._exchange_on(idle, payload)
            except OSError:
                self._forget_idle()  # those of the same host's life
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await asyncio.open_unix_connection(str(self._path))
        return await self._exchange_on(connection, payload)

    async def _exchange_on(self, connection: _Connection, payload: bytes) -> bytes:
        reader, writer = connection
        is_done = False
        try:
            writer.write(payload)
            answer = await read_frame(reader)
            if answer is None:
                raise FrameError("it closed the link")
            is_done = True
        finally:
            if is_done and not self._is_closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
            else:
                writer.close()
        return answer

    def _take_idle(self) -> _Connection | None:
        """One that is open as far as is known here: writing to another would raise what says nothing of the host."""
        while self._idle:
            connection = self._idle.pop()
            if not connection[1].is_closing():
                return connection
        return None

    def _forget_idle(self) -> None:
        idle, self._idle = self._idle, []
        for _, writer in idle:
            writer.close()
