"""Connections to one address: which are given out again, and what is told when there is none."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from clary.gateway import forward, upstream
from clary.gateway.upstream import IDLE_S, Broken, Connection, Headers, Open, Upstream, Waiter, sweep
from clary.wire.exchange import Exchange
from clary.wire.heads import Head

ADDRESS = "unix:/none"


class Transport:
    """Tells that it has ended only when the test says so, as a real one does in the loop's next turn."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


class Caller(Waiter):
    def __init__(self) -> None:
        self.told: list[int | Broken] = []
        self.ended = asyncio.Event()

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        self.told.append(status)

    def on_complete(self) -> None:
        self.ended.set()

    def on_broken(self, how: Broken) -> None:
        self.told.append(how)
        self.ended.set()


class Address:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.open: set[Open] = set()
        self.upstream = Upstream(ADDRESS, self.loop, self.open)

    def connection(self) -> tuple[Connection, Transport]:
        made, transport = Connection(self.upstream), Transport()
        made.connection_made(transport)
        return made, transport

    def idle(self) -> tuple[Connection, Transport]:
        made, transport = self.connection()
        self.upstream.put_back(made)
        return made, transport

    async def send(self, timeout_s: float = 60.0) -> Caller:
        caller = Caller()
        self.upstream.send(b"request", caller, self.loop.time() + timeout_s)
        await caller.ended.wait()
        return caller


def on_loop(story: Callable[[Address], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await story(Address())

    asyncio.run(run())


def grow_old(address: Address, connection: Connection) -> None:
    sweep(address.open, address.loop.time() + IDLE_S + 1)


def say_what_nobody_asked(address: Address, connection: Connection) -> None:
    connection.data_received(b"HTTP/1.1 408 Too late\r\n\r\n")


def end(address: Address, connection: Connection) -> None:
    connection.eof_received()  # the transport closes then


def leave_the_routes(address: Address, connection: Connection) -> None:
    address.upstream.close()


@pytest.mark.parametrize("what", [end, grow_old, say_what_nobody_asked, leave_the_routes])
def test_H05_a_connection_that_is_given_up_takes_no_request_although_it_has_not_ended_yet(
    what: Callable[[Address, Connection], None],
) -> None:
    async def story(address: Address) -> None:
        connection, transport = address.idle()
        what(address, connection)
        assert transport.aborted or what is end
        caller = await address.send()
        assert caller.told == [Broken.UNREACHABLE]  # of a new connection: nobody listens there
        assert transport.written == b""

    on_loop(story)


def test_H05_who_gets_a_connection_that_has_ended_already_is_told() -> None:
    async def story(address: Address) -> None:
        connection, _ = address.connection()
        connection.connection_lost(None)
        caller = Caller()
        connection.begin(b"request", caller, address.loop.time() + 60)
        assert caller.told == [Broken.UNREACHABLE]

    on_loop(story)


def test_H05_a_connection_is_not_waited_for_beyond_the_requests_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    async def story(address: Address) -> None:
        monkeypatch.setattr(address.loop, "create_unix_connection", never)
        assert (await address.send(timeout_s=0.01)).told == [Broken.TIMEOUT]
        monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.01)
        assert (await address.send(timeout_s=60.0)).told == [Broken.UNREACHABLE]

    on_loop(story)


def test_H05_a_full_queue_of_connections_is_waited_for_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def is_full(*_: object) -> Any:
        raise OSError(errno.EAGAIN, "the queue is full")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def story(address: Address) -> None:
        began = address.loop.time()
        monkeypatch.setattr(address.loop, "time", lambda: began + sum(pauses))
        monkeypatch.setattr(address.loop, "create_unix_connection", is_full)
        monkeypatch.setattr(asyncio, "sleep", pause)
        monkeypatch.setattr(upstream, "_BUSY_S", 0.5)
        assert (await address.send()).told == [Broken.UNREACHABLE]
        assert pauses == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25]

    on_loop(story)


def test_H05_a_connection_that_its_caller_ends_with_the_last_part_is_given_to_nobody() -> None:
    class Leaves(Caller):
        def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
            connection.abort()

    async def story(address: Address) -> None:
        connection, transport = address.connection()
        connection.begin(b"request", Leaves(), address.loop.time() + 60)
        connection.is_sent = True
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert transport.aborted
        assert (await address.send()).told == [Broken.UNREACHABLE]
        assert transport.written == b"request"

    on_loop(story)


class Asked:
    """A client's request that control answers."""

    on_lost: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    is_started = False

    def __init__(self) -> None:
        self.head = Head(b"PUT", b"/bucket/key", {b"content-length": b"3"})
        self.status = 0

    def respond(self, status: int, fields: bytes, body: bytes, length: int | None = None) -> None:
        self.status = status


def answer(asked: Asked, *, is_pumped: bool) -> forward._Answer:
    return forward._Answer(cast(Exchange, asked), asyncio.get_running_loop(), is_pumped=is_pumped)


@pytest.mark.parametrize(("is_pumped", "is_used_again"), [(True, False), (False, True)])
def test_H05_a_connection_whose_answer_came_before_the_requests_body_is_not_used_again(
    is_pumped: bool, is_used_again: bool
) -> None:
    """Control answers as soon as it has the head, before whoever sends the body has had a turn."""

    async def story(address: Address) -> None:
        connection, transport = address.connection()
        asked = Asked()
        connection.begin(b"head", answer(asked, is_pumped=is_pumped), address.loop.time() + 60)
        connection.data_received(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")
        assert asked.status == 400
        assert transport.aborted is not is_used_again

    on_loop(story)


def test_H05_a_client_that_goes_before_there_is_a_connection_leaves_none_behind() -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        asked = Asked()
        waiting = answer(asked, is_pumped=True)
        assert asked.on_lost is not None
        asked.on_lost()
        connection.begin(b"head", waiting, address.loop.time() + 60)
        assert transport.aborted

    on_loop(story)
