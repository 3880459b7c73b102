"""Held requests: asked again when told, at the latest in time, and dropped with their client."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from clary.wire.exchange import ConnectionLost, Exchange
from clary.wire.holding import Holding
from clary.wire.operations import Held

LONG_S = 300.0


class FakeExchange:
    on_lost: Callable[[], None] | None = None


class Handler:
    """Holds until `settled`; remembers who watches."""

    def __init__(self) -> None:
        self.settled = False
        self.asked: list[bool] = []
        self.watchers: list[Callable[[], None]] = []

    async def ask(self, may_hold: bool) -> str:
        self.asked.append(may_hold)
        if self.settled or not may_hold:
            return "settled" if self.settled else "as it is"
        raise Held(self._watch)

    def _watch(self, tell: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(tell)
        return lambda: self.watchers.remove(tell)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def begin(holding: Holding, handler: Handler, exchange: FakeExchange | None = None) -> "asyncio.Task[str]":
    exchange = exchange or FakeExchange()
    return asyncio.create_task(cast(Any, holding.answer(cast(Exchange, exchange), handler.ask)))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 the loop takes a few turns
        await asyncio.sleep(0)


def test_a_held_request_is_asked_again_until_it_has_settled() -> None:
    async def story() -> None:
        holding, handler = Holding(LONG_S), Handler()
        task = begin(holding, handler)
        await until(lambda: len(handler.watchers) == 1)
        handler.watchers[0]()  # something changed, but it has not settled
        await until(lambda: len(handler.asked) == 2 and len(handler.watchers) == 1)
        handler.settled = True
        handler.watchers[0]()
        assert await task == "settled"
        assert (handler.asked, handler.watchers, holding.count) == ([True, True, True], [], 0)

    run(story())


def test_time_runs_out_and_the_answer_is_what_stands() -> None:
    async def story() -> None:
        handler = Handler()
        assert await begin(Holding(0.01), handler) == "as it is"
        assert handler.asked[-1] is False and handler.watchers == []

    run(story())


def test_zero_seconds_hold_nothing() -> None:
    async def story() -> None:
        handler = Handler()
        assert await begin(Holding(0.0), handler) == "as it is"
        assert handler.asked == [False]

    run(story())


def test_only_so_many_are_held() -> None:
    async def story() -> None:
        holding, handler = Holding(LONG_S, most=2), Handler()
        tasks = [begin(holding, handler) for _ in range(2)]
        await until(lambda: holding.count == 2)
        assert await begin(holding, handler) == "as it is"
        holding.release()
        assert await asyncio.gather(*tasks) == ["as it is", "as it is"]
        assert await begin(holding, handler) == "as it is"  # and from now on none

    run(story())


def test_who_tells_a_server_that_has_just_stopped_hears_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    async def story() -> None:
        holding, handler = Holding(LONG_S), Handler()
        task = begin(holding, handler)
        await until(lambda: len(handler.watchers) == 1)
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", closed)
            handler.watchers[0]()
        holding.release()
        assert await task == "as it is"

    run(story())


def test_a_client_that_goes_is_dropped() -> None:
    async def story() -> None:
        holding, handler, exchange = Holding(LONG_S), Handler(), FakeExchange()
        task = begin(holding, handler, exchange)
        await until(lambda: exchange.on_lost is not None and len(handler.watchers) == 1)
        assert exchange.on_lost is not None
        exchange.on_lost()
        with pytest.raises(ConnectionLost):
            await task
        assert (handler.watchers, holding.count) == ([], 0)

    run(story())
