"""A connection without a socket: framing, order, limits and endings."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.runtimes.batching import Batcher
from clary.runtimes.connection import MOST_READ_AHEAD, MOST_TOGETHER, Connection, Service
from clary.runtimes.contract import Deliver, InvocationRequest, InvocationResponse


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: object) -> None:
        self.written += bytes(cast(bytes, data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Waiting:
    """Stands for the batcher: keeps groups of requests until it is told to answer."""

    def __init__(self) -> None:
        self.groups: list[tuple[Sequence[InvocationRequest], Deliver]] = []

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        self.groups.append((requests, deliver))

    def answer(self) -> list[bytes]:
        requests, deliver = self.groups.pop(0)
        deliver([InvocationResponse(200, "text/plain", request.body) for request in requests])
        return [request.body for request in requests]


class Client:
    def __init__(self, limit: int = 1000) -> None:
        self.waiting = Waiting()
        self.service = Service(cast(Batcher, self.waiting), limit, {"MaxPayloadInMB": 6})
        self.connection = Connection(self.service)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.transport.written.split(b"HTTP/1.1 ")[1:]]


def on_loop(story: Callable[[Client], None], limit: int = 1000) -> Client:
    """Runs a story on a loop, so that what the connection puts off until later also happens."""

    async def run() -> Client:
        client = Client(limit)
        story(client)
        for _ in range(20):
            await asyncio.sleep(0)
            while client.waiting.groups:
                client.waiting.answer()
        return client

    return asyncio.run(run())


def invocation(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /invocations HTTP/1.1", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    head = b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=30)), min_size=1, max_size=6),
    st.integers(1, 200),
)
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(
    requests: list[tuple[bool, bytes]], step: int
) -> None:
    stream = b"".join(chunked(body) if in_chunks else invocation(body) for in_chunks, body in requests)

    def story(client: Client) -> None:
        for start in range(0, len(stream), step):
            client.send(stream[start : start + step])

    client = on_loop(story)
    bodies = [body for _, body in requests]
    expected = b"".join(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    )
    assert client.transport.written == expected
    assert not client.transport.closed


def test_known_requests_that_come_together_are_predicted_and_answered_together() -> None:
    groups: list[list[bytes]] = []

    def story(client: Client) -> None:
        client.send(invocation(b"a"))
        client.waiting.answer()
        client.send(invocation(b"b") + invocation(b"c") + invocation(b"dd") + invocation(b"e"))
        client.send(invocation(b"f"))
        while client.waiting.groups:
            groups.append(client.waiting.answer())
            client.connection.resume_writing()

    client = on_loop(story)
    assert groups == [[b"b", b"c"], [b"dd"], [b"e", b"f"]]  # of `dd` the head was new
    assert client.statuses == [200] * 6


def test_a_ping_among_invocations_is_answered_in_its_place() -> None:
    def story(client: Client) -> None:
        client.send(invocation(b"a"))
        client.waiting.answer()
        client.send(invocation(b"b") + b"GET /ping HTTP/1.1\r\n\r\n" + invocation(b"c"))

    client = on_loop(story)
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in client.transport.written.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"a", b"b", b"", b"c"]


def test_a_group_is_bounded() -> None:
    sizes: list[int] = []

    def story(client: Client) -> None:
        client.send(invocation(b"a"))
        client.waiting.answer()
        client.send(invocation(b"b") * (2 * MOST_TOGETHER + 1))
        while client.waiting.groups:
            sizes.append(len(client.waiting.answer()))
            client.connection.resume_writing()

    client = on_loop(story)
    assert sizes == [MOST_TOGETHER, MOST_TOGETHER, 1]
    assert len(client.statuses) == 2 * MOST_TOGETHER + 2


def test_the_last_answer_of_a_group_says_that_a_stopping_server_closes() -> None:
    def story(client: Client) -> None:
        client.send(invocation(b"a"))
        client.waiting.answer()
        client.send(invocation(b"b") * 2)
        client.service.stop(lambda: None)
        client.waiting.answer()

    client = on_loop(story)
    first, second = client.transport.written.split(b"HTTP/1.1 ")[2:]
    assert b"Connection: close" not in first
    assert b"Connection: close" in second
    assert client.transport.closed


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /ping", 200),
        (b"GET /execution-parameters", 200),
        (b"HEAD /ping", 200),
        (b"POST /ping", 405),
        (b"GET /invocations", 405),
        (b"DELETE /execution-parameters", 405),
        (b"GET /models", 404),
    ],
)
def test_routes(request_line: bytes, status: int) -> None:
    client = on_loop(lambda client: client.send(request_line + b" HTTP/1.1\r\n\r\n"))
    assert client.statuses == [status]
    assert not client.transport.closed


def test_ping_is_empty() -> None:
    client = on_loop(lambda client: client.send(b"GET /ping HTTP/1.1\r\n\r\n"))
    assert client.transport.written == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x00", b"hello\r\n", b"POST / HTTP/9\r\n\r\n", b"\0" * 100]
)
def test_garbage_is_refused_and_the_connection_ends(garbage: bytes) -> None:
    client = on_loop(lambda client: client.send(garbage))
    assert client.statuses == [400]
    assert client.transport.closed


def test_a_head_without_end_is_refused() -> None:
    client = on_loop(lambda client: client.send(b"GET /ping HTTP/1.1\r\nX: " + b"a" * 40_000))
    assert client.statuses == [431]
    assert client.transport.closed


@pytest.mark.parametrize("request_bytes", [invocation(b"x" * 1001), chunked(b"x" * 1001)])
def test_a_body_over_the_limit_is_refused(request_bytes: bytes) -> None:
    client = on_loop(lambda client: client.send(request_bytes))
    assert client.statuses == [413]
    assert client.transport.closed


def test_a_known_head_does_not_get_around_the_limit() -> None:
    def story(client: Client) -> None:
        client.service.heads.parse(invocation(b"x" * 1001)[:-1001])
        client.send(invocation(b"x" * 1001))

    assert on_loop(story).statuses == [413]


def test_continue_is_sent_to_those_who_wait_for_it() -> None:
    whole = invocation(b"abc", b"Expect: 100-continue")

    def story(client: Client) -> None:
        client.send(whole[:-3])
        assert client.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(whole[-3:])

    assert on_loop(story).statuses == [100, 200]


def test_connection_close_is_obeyed() -> None:
    client = on_loop(lambda client: client.send(invocation(b"abc", b"Connection: close")))
    assert client.statuses == [200]
    assert client.transport.closed


def test_a_client_that_left_is_no_error() -> None:
    def story(client: Client) -> None:
        client.send(invocation(b"abc"))
        client.connection.connection_lost(None)

    client = on_loop(story)
    assert client.transport.written == b""
    assert not client.service.connections


def test_reading_ahead_is_bounded() -> None:
    def story(client: Client) -> None:
        client.send(invocation(b"first"))
        client.send(invocation(b"second") * (MOST_READ_AHEAD // 40))
        assert client.transport.paused

    async def run() -> Client:
        client = Client()
        story(client)
        while client.waiting.groups:
            client.waiting.answer()
            await asyncio.sleep(0)
        return client

    client = asyncio.run(run())
    assert not client.transport.paused
    assert client.statuses == [200] * (1 + MOST_READ_AHEAD // 40)


def test_stopping_ends_idle_connections_now_and_busy_ones_after_their_answer() -> None:
    gone: list[bool] = []

    def story(client: Client) -> None:
        idle = Connection(client.service)
        idle_transport = Transport()
        idle.connection_made(idle_transport)
        client.send(invocation(b"abc"))
        client.service.stop(lambda: gone.append(True))
        assert idle_transport.closed
        assert not client.transport.closed
        idle.connection_lost(None)
        assert not gone

    client = on_loop(story)
    assert client.statuses == [200]
    assert client.transport.closed
    client.connection.connection_lost(None)
    assert gone == [True]
