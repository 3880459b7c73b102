"""Groups of requests on one connection: who gets which answer, and what each is told when it ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.gateway.answer_heads import AnswerHead
from clary.gateway.pipeline import MOST_TOGETHER, Pipeline, Pipelines
from clary.gateway.upstream import IDLE_S, Broken, Open, sweep


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class Caller:
    """Takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bytes] | Broken] = []

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        self.told.append((head.status, body))

    def on_broken(self, how: Broken) -> None:
        self.told.append(how)


class Address:
    """Pipelines whose connections are made here."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.open: set[Open] = set()
        self.pipelines = Pipelines("unix:/none", self.loop, self.open)

    def connection(self) -> tuple[Pipeline, Transport]:
        """One more, idle."""
        made, transport = Pipeline(self.pipelines), Transport()
        made.connection_made(transport)
        self.pipelines.put_back(made)
        return made, transport

    async def send(self, *bodies: bytes, timeout_s: float = 60.0) -> list[Caller]:
        """All in one turn."""
        callers = [Caller() for _ in bodies]
        for caller, body in zip(callers, bodies, strict=True):
            self.pipelines.send((b"<", body, b">"), caller, self.loop.time() + timeout_s)
        await asyncio.sleep(0)
        return callers


def on_loop(story: Callable[[Address], Any]) -> None:
    async def run() -> None:
        await story(Address())

    asyncio.run(run())


def answer(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, more, len(body), body)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"200 OK", b"400 No"]), st.binary(max_size=60)), min_size=1, max_size=8
    ),
    st.integers(1, 100),
)
@settings(max_examples=80, deadline=None)
def test_H05_each_gets_its_own_answer_however_they_are_cut(
    answers: list[tuple[bytes, bytes]], step: int
) -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        for _ in range(2):  # the second group on the same connection
            callers = await address.send(*(b"%d" % n for n in range(len(answers))))
            stream = b"".join(answer(body, status) for status, body in answers)
            for start in range(0, len(stream), step):
                connection.data_received(stream[start : start + step])
            assert [caller.told for caller in callers] == [
                [(int(status[:3]), body)] for status, body in answers
            ]
        assert transport.written == [b"".join(b"<%d>" % n for n in range(len(answers)))] * 2
        assert not transport.aborted

    on_loop(story)


def test_H05_a_turn_is_one_group_and_the_next_turn_takes_another_connection() -> None:
    async def story(address: Address) -> None:
        (_, first), (_, second) = address.connection(), address.connection()
        await address.send(b"a", b"b")
        await address.send(b"c")
        assert (second.written, first.written) == ([b"<a><b>"], [b"<c>"])

    on_loop(story)


def test_H05_a_group_is_bounded() -> None:
    async def story(address: Address) -> None:
        transports = [address.connection()[1] for _ in range(3)]
        await address.send(*[b"x"] * (2 * MOST_TOGETHER + 1))
        assert sorted(len(t.written[0]) // 3 for t in transports) == [1, MOST_TOGETHER, MOST_TOGETHER]

    on_loop(story)


@pytest.mark.parametrize(
    ("received", "told"),
    [
        (b"", [Broken.LOST, Broken.LOST, Broken.LOST]),
        (answer(b"1"), [(200, b"1"), Broken.LOST, Broken.LOST]),
        (answer(b"1") + b"HTTP/1.1 2", [(200, b"1"), Broken.CUT, Broken.LOST]),
        (answer(b"1") + answer(b"22")[:-1], [(200, b"1"), Broken.CUT, Broken.LOST]),
    ],
)
def test_H05_when_the_connection_breaks_each_is_told_what_is_known(
    received: bytes, told: list[tuple[int, bytes] | Broken]
) -> None:
    async def story(address: Address) -> None:
        connection, _ = address.connection()
        callers = await address.send(b"a", b"b", b"c")
        if received:
            connection.data_received(received)
        connection.connection_lost(None)
        assert [caller.told for caller in callers] == [[what] for what in told]
        assert not address.open

    on_loop(story)


@pytest.mark.parametrize(
    ("received", "first"),
    [
        (b"this is no HTTP\r\n\r\n", Broken.GARBAGE),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Broken.GARBAGE),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout a length", Broken.GARBAGE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", Broken.GARBAGE),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000, Broken.GARBAGE),
    ],
)
def test_H05_what_cannot_be_read_ends_the_connection(received: bytes, first: Broken) -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        callers = await address.send(b"a", b"b")
        connection.data_received(received)
        connection.connection_lost(None)
        assert [caller.told for caller in callers] == [[first], [Broken.LOST]]
        assert transport.aborted

    on_loop(story)


def test_H05_a_used_connection_that_ends_unanswered_was_stale() -> None:
    async def story(address: Address) -> None:
        connection, _ = address.connection()
        await address.send(b"a")
        connection.data_received(answer(b"1"))
        callers = await address.send(b"b", b"c")
        connection.connection_lost(ConnectionResetError())
        assert [caller.told for caller in callers] == [[Broken.STALE], [Broken.STALE]]

    on_loop(story)


def test_H05_who_says_close_is_not_used_again() -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        callers = await address.send(b"a", b"b")
        connection.data_received(answer(b"1", more=b"connection: close\r\n") + answer(b"2"))
        assert [caller.told for caller in callers] == [[(200, b"1")], [Broken.LOST]]
        assert transport.aborted

    on_loop(story)


@pytest.mark.parametrize("more", [answer(b"2"), b"\r\n"])
def test_H05_more_answers_than_requests_end_the_connection(more: bytes) -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        callers = await address.send(b"a")
        connection.data_received(answer(b"1") + more)
        assert callers[0].told == [(200, b"1")]
        assert transport.aborted
        idle, idle_transport = address.connection()
        idle.data_received(more)
        assert idle_transport.aborted

    on_loop(story)


def test_H05_a_group_out_of_time_is_told_and_gets_no_late_answer() -> None:
    async def story(address: Address) -> None:
        connection, transport = address.connection()
        began = address.loop.time()
        callers = await address.send(b"a", b"b", timeout_s=5.0)
        connection.data_received(answer(b"1"))
        sweep(address.open, began + 4)
        assert callers[1].told == []
        sweep(address.open, address.loop.time() + 6)
        connection.data_received(answer(b"late"))
        connection.connection_lost(None)
        assert [caller.told for caller in callers] == [[(200, b"1")], [Broken.TIMEOUT]]
        assert transport.aborted

    on_loop(story)


def test_H05_idle_connections_end_after_a_while() -> None:
    async def story(address: Address) -> None:
        began = address.loop.time()
        _, transport = address.connection()
        sweep(address.open, began + IDLE_S - 1)
        assert not transport.aborted
        sweep(address.open, address.loop.time() + IDLE_S + 1)
        (caller,) = await address.send(b"a")
        await asyncio.gather(*address.pipelines._connecting)
        assert caller.told == [Broken.UNREACHABLE]  # of a new one: what is given up takes no request any more
        assert transport.written == []
        assert transport.aborted

    on_loop(story)


def test_H05_a_bug_with_one_answer_costs_the_others_nothing() -> None:
    class Faulty(Caller):
        def on_answer(self, head: AnswerHead, body: bytes) -> None:
            raise ValueError("a bug")

    async def story(address: Address) -> None:
        connection, _ = address.connection()
        address.pipelines.send((b"a",), Faulty(), address.loop.time() + 60)
        (caller,) = await address.send(b"b")
        connection.data_received(answer(b"1") + answer(b"2"))
        assert caller.told == [(200, b"2")]

    on_loop(story)


def test_H05_once_closed_nothing_stays_open_and_what_is_under_way_ends_well() -> None:
    async def story(address: Address) -> None:
        (busy, busy_transport), _ = address.connection(), None
        callers = await address.send(b"a")
        _, idle_transport = address.connection()
        address.pipelines.close()
        assert idle_transport.aborted
        busy.data_received(answer(b"1"))
        assert callers[0].told == [(200, b"1")]
        assert busy_transport.aborted

    on_loop(story)


def test_H05_nobody_there_is_told_to_all() -> None:
    async def story(address: Address) -> None:
        callers = await address.send(b"a", b"b")
        await asyncio.gather(*address.pipelines._connecting)
        assert [caller.told for caller in callers] == [[Broken.UNREACHABLE], [Broken.UNREACHABLE]]

    on_loop(story)
