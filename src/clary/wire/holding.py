"""Requests whose answer is worth a short wait: held on the loop, without a thread, and asked again.

A handler that is allowed to (`Call.may_hold`) raises `Held`; the request then waits here until what it waits for
happens, its time is over or its client is gone, and the handler is called anew. Only so many are held at once: the
next one gets its answer as things stand.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from clary.wire.exchange import ConnectionLost, Exchange
from clary.wire.operations import Held

_T = TypeVar("_T")

MOST_HELD = 512


class Holding:
    """Used on one loop. `longest_s` 0 holds nothing."""

    def __init__(self, longest_s: float, most: int = MOST_HELD) -> None:
        self._longest_s = longest_s
        self._most = most
        self._held: set[asyncio.Event] = set()
        self._is_over = False

    @property
    def count(self) -> int:
        """How many requests are held now."""
        return len(self._held)

    def release(self) -> None:
        """Lets all go, and holds none any more: the server stops."""
        self._is_over = True
        for woken in self._held:
            woken.set()

    async def answer(self, exchange: Exchange, ask: Callable[[bool], Awaitable[_T]]) -> _T:
        """What `ask(may_hold)` answers in the end. Raises ConnectionLost when the client goes while it is held."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._longest_s
        while True:
            may_hold = not self._is_over and loop.time() < until and len(self._held) < self._most
            try:
                return await ask(may_hold)
            except Held as held:
                await self._wait(exchange, held, until - loop.time())

    async def _wait(self, exchange: Exchange, held: Held, left_s: float) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        gone = False

        def lost() -> None:
            nonlocal gone
            gone = True
            woken.set()

        exchange.on_lost, before = lost, exchange.on_lost
        self._held.add(woken)
        forget = held.watch(lambda: _wake(loop, woken))
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            forget()
            self._held.discard(woken)
            exchange.on_lost = before
        if gone:
            raise ConnectionLost("the client closed the connection")


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the server has stopped, perhaps just now
        loop.call_soon_threadsafe(woken.set)
