"""The HTTP server over real sockets, against clients that misbehave."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.wire.exchange import BodyError, BodyTooLarge, ConnectionLost, Exchange
from clary.wire.heads import UnsafeField, encode_fields
from clary.wire.http import Handler, HttpServer, Limits

QUICK = Limits(head_s=0.2, body_s=0.2, write_s=0.2, idle_s=0.5, tick_s=0.02)
PATIENT = Limits()
OVER_S = 120  # nothing here takes so long, on whatever machine

Scenario = Callable[[HttpServer, Path], Awaitable[None]]


def run(handler: Handler, scenario: Scenario, tmp_path: Path, limits: Limits = PATIENT) -> None:
    async def main() -> None:
        server = HttpServer(handler, limits=limits)
        path = tmp_path / "s"
        await server.listen_unix(path)
        try:
            await asyncio.wait_for(scenario(server, path), OVER_S)
        finally:
            await server.close(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def talk(path: Path, data: bytes) -> bytes:
    """Sends everything, then reads until the server closes. What can be sent at once is there before the server looks,
    so that its times begin with that and not with a client that does not get a turn."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.connect(str(path))
        sent = sock.send(data) if data else 0
        reader, writer = await asyncio.open_unix_connection(sock=sock.dup())
    writer.write(data[sent:])
    answer = await reader.read(-1)
    writer.close()
    return answer


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 -- what is waited for is the server's own state
        await asyncio.sleep(0.01)


def echo(exchange: Exchange) -> None:
    def done(exchange: Exchange, body: bytes) -> None:
        exchange.respond(200, b"", exchange.head.target + b"|" + body)

    def refused(exchange: Exchange, error: BodyError) -> None:
        exchange.respond(error.status, b"", str(error).encode())

    exchange.collect(1000, done, refused)


async def echo_stream(exchange: Exchange) -> None:
    exchange.start(200)
    try:
        async for part in exchange.parts():
            await exchange.write(part)
    except ConnectionLost:
        return
    except BodyError:
        exchange.abort()
        return
    exchange.end()


def head(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((line, b"Host: h", *headers)) + b"\r\n\r\n"


CLOSE = b"Connection: close"


def test_a_request_is_answered_and_its_connection_reused(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        one = head(b"POST /a?b HTTP/1.1", b"Content-Length: 2") + b"hi"
        answer = await talk(path, one + head(b"GET /c HTTP/1.1", CLOSE))
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b"/a?b|hi" in answer
        assert answer.endswith(b"connection: close\r\n\r\n/c|")

    run(echo, scenario, tmp_path)


def test_pipelined_requests_are_answered_in_order_one_at_a_time(tmp_path: Path) -> None:
    running = 0

    async def slow_first(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1
        for _ in range(3 if exchange.head.path == b"/0" else 1):
            await asyncio.sleep(0)
        running -= 1
        exchange.respond(200, b"", exchange.head.path)

    async def scenario(_: HttpServer, path: Path) -> None:
        requests = [head(b"GET /%d HTTP/1.1" % number) for number in range(50)]
        answer = await talk(path, b"".join(requests) + head(b"GET /50 HTTP/1.1", CLOSE))
        bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"/%d" % number for number in range(51)]

    run(slow_first, scenario, tmp_path)


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(b"POST / HTTP/1.1", b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(b"POST / HTTP/1.1", b"Content-Length: 3", b"Content-Length: 3") + b"abc",
        head(b"POST / HTTP/1.1", b"Content-Length: 3, 3") + b"abc",
        head(b"POST / HTTP/1.1", b"Content-Length: -1"),
        head(b"POST / HTTP/1.1", b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: h\n\n",
        head(b"GET / HTTP/1.1", b"A: b\r\n folded"),
        head(b"GET / HTTP/1.1", b"A : b"),
        head(b"GET / HTTP/1.1", b"A: b\0c"),
        head(b"GET / HTTP/1.1", b"Host: other"),
        head(b"GET / HTTP/1.1", b"X-Amz-Date: 1", b"x-amz-date: 2"),
        head(b"GET no-slash HTTP/1.1"),
        head(b"NONSENSE / HTTP/1.1"),
        head(b"GET / HTTP/3.1"),
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        head(b"GET / HTTP/1.1", b"Expect: a miracle"),
    ],
)
def test_an_ambiguous_or_malformed_request_is_refused_and_its_connection_closed(
    tmp_path: Path, request_bytes: bytes
) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        answer = await talk(path, request_bytes + head(b"GET /smuggled HTTP/1.1", CLOSE))
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 417", b"HTTP/1.1 505"))
        assert answer.count(b"HTTP/1.1") == 1
        assert b"/smuggled" not in answer

    run(echo, scenario, tmp_path)


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(b"GET / HTTP/1.1", b"A: " + b"a" * (70 << 10)),
        head(b"GET / HTTP/1.1", *(b"A%d: b" % number for number in range(300))),
        head(b"GET /" + b"a" * (70 << 10) + b" HTTP/1.1"),
    ],
)
def test_a_head_too_large_is_refused(tmp_path: Path, request_bytes: bytes) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        assert (await talk(path, request_bytes)).startswith(b"HTTP/1.1 431")

    run(echo, scenario, tmp_path)


def test_a_head_that_never_ends_is_cut_off_whether_it_is_slow_or_endless(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        assert (await talk(path, b"GET / HTTP/1.1\r\nHost")).startswith(b"HTTP/1.1 408")
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\n")
        answer = asyncio.ensure_future(reader.read(-1))
        while not answer.done():  # a header each turn keeps the connection busy, but not for ever
            writer.write(b"A: b\r\n")
            await asyncio.sleep(0.01)
        assert (await answer).startswith((b"HTTP/1.1 408", b"HTTP/1.1 431"))
        writer.close()

    run(echo, scenario, tmp_path, QUICK)


def test_a_body_that_stops_coming_is_cut_off(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        answer = await talk(path, head(b"POST / HTTP/1.1", b"Content-Length: 10") + b"abc")
        assert answer.startswith(b"HTTP/1.1 408")
        assert answer.count(b"HTTP/1.1") == 1

    run(echo, scenario, tmp_path, QUICK)


def test_an_idle_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        assert await talk(path, b"") == b""
        answer = await talk(path, head(b"GET /a HTTP/1.1"))
        assert answer.endswith(b"/a|")

    run(echo, scenario, tmp_path, QUICK)


def test_a_body_too_long_is_refused_before_or_while_it_comes(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        answer = await talk(path, head(b"POST / HTTP/1.1", b"Content-Length: 1001") + b"a" * 1001 + b"")
        assert answer.startswith(b"HTTP/1.1 413")
        chunked = head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", CLOSE) + b"3e9\r\n" + b"a" * 1001
        assert (await talk(path, chunked + b"\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 413")

    run(echo, scenario, tmp_path, QUICK)


def test_an_early_refusal_reaches_a_client_that_is_still_sending(tmp_path: Path) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(403, b"", b"no")

    async def scenario(_: HttpServer, path: Path) -> None:
        body = b"a" * (8 << 20)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"POST / HTTP/1.1", b"Content-Length: %d" % len(body)))
        writer.write(body)
        await writer.drain()
        answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 403") and answer.endswith(b"no")
        assert b"connection: close" in answer
        writer.close()

    run(refuse, scenario, tmp_path)


def test_a_small_unread_body_is_dropped_and_the_connection_kept(tmp_path: Path) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(403, b"", exchange.head.path)

    async def scenario(_: HttpServer, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"POST /1 HTTP/1.1", b"Content-Length: 5") + b"ab")
        first = await reader.readuntil(b"/1")
        assert b"connection: close" not in first
        writer.write(b"cde" + head(b"GET /2 HTTP/1.1", CLOSE))
        assert (await reader.read(-1)).endswith(b"/2")
        writer.close()

    run(refuse, scenario, tmp_path)


def test_100_continue_is_sent_when_the_body_is_wanted_and_only_then(tmp_path: Path) -> None:
    def pick(exchange: Exchange) -> None:
        if exchange.head.path == b"/refused":
            exchange.respond(403)
        else:
            echo(exchange)

    async def scenario(_: HttpServer, path: Path) -> None:
        expects = (b"Content-Length: 2", b"Expect: 100-continue")
        refusal = await talk(path, head(b"PUT /refused HTTP/1.1", *expects))
        assert refusal.startswith(b"HTTP/1.1 403") and b"100 Continue" not in refusal
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"PUT /taken HTTP/1.1", *expects, CLOSE))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.read(-1)).endswith(b"/taken|hi")
        writer.close()

    run(pick, scenario, tmp_path)


def test_a_client_that_goes_in_the_middle_of_a_body_leaves_an_error_and_no_answer(tmp_path: Path) -> None:
    seen: list[BaseException] = []
    over = asyncio.Event()

    async def reading(exchange: Exchange) -> None:
        try:
            await exchange.read_body(1000)
        except ConnectionLost as error:
            seen.append(error)
            over.set()

    async def scenario(_: HttpServer, path: Path) -> None:
        _reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"POST / HTTP/1.1", b"Content-Length: 10") + b"abc")
        await writer.drain()
        writer.close()
        await over.wait()

    run(reading, scenario, tmp_path)
    assert len(seen) == 1


def test_on_lost_tells_that_nobody_waits_for_the_answer(tmp_path: Path) -> None:
    lost = asyncio.Event()
    arrived = asyncio.Event()

    def never(exchange: Exchange) -> None:
        exchange.on_lost = lost.set
        arrived.set()

    async def scenario(_: HttpServer, path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, str(path))
        await loop.sock_sendall(sock, head(b"GET / HTTP/1.1") + b"GET /half")
        await arrived.wait()
        sock.close()
        await lost.wait()

    run(never, scenario, tmp_path)


def test_streams_run_both_ways_with_back_pressure(tmp_path: Path) -> None:
    size = 20 << 20

    async def scenario(server: HttpServer, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"POST / HTTP/1.1", b"Content-Length: %d" % size, CLOSE))

        async def send() -> None:
            for _ in range(size >> 16):
                writer.write(b"a" * (1 << 16))
                await writer.drain()

        sending = asyncio.ensure_future(send())
        await reader.readuntil(b"\r\n\r\n")
        received = 0
        while True:
            line = await reader.readline()
            length = int(line, 16)
            await reader.readexactly(length + 2)
            received += length
            if not length:
                break
        await sending
        assert received == size
        writer.close()

    run(echo_stream, scenario, tmp_path)


def test_a_client_that_does_not_read_its_answer_stops_the_server_reading_and_is_dropped(
    tmp_path: Path,
) -> None:
    answered = 0

    def large(exchange: Exchange) -> None:
        nonlocal answered
        answered += 1
        exchange.respond(200, b"", b"a" * (1 << 20))

    async def scenario(server: HttpServer, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1024)
        writer.write(head(b"GET / HTTP/1.1") * 1000)
        await until(lambda: answered > 0 and not server.connections)
        assert not reader.at_eof()
        writer.transport.abort()
        assert answered < 10
        writer.close()

    run(large, scenario, tmp_path, QUICK)


def test_a_handler_that_raises_gives_500_and_the_server_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        async def later() -> None:
            raise ValueError("later")

        def done(exchange: Exchange, body: bytes) -> None:
            raise ValueError("in a callback")

        if exchange.head.path == b"/now":
            raise ValueError("now")
        if exchange.head.path == b"/later":
            return later()
        exchange.collect(10, done, lambda *_: None)
        return None

    async def scenario(_: HttpServer, path: Path) -> None:
        for target in (b"/now", b"/later", b"/callback"):
            assert (await talk(path, head(b"GET %b HTTP/1.1" % target, CLOSE))).startswith(b"HTTP/1.1 500")

    run(broken, scenario, tmp_path)
    assert [record.getMessage() for record in caplog.records] == ["handler failed"] * 3


def test_an_answer_broken_off_does_not_look_whole(tmp_path: Path) -> None:
    async def half(exchange: Exchange) -> None:
        exchange.start(200)
        await exchange.write(b"half")
        raise ValueError("the other half is missing")

    async def scenario(_: HttpServer, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head(b"GET / HTTP/1.1"))
        try:
            answer = await reader.read(-1)
        except ConnectionError:
            answer = b""
        assert b"\r\n0\r\n" not in answer
        writer.close()

    run(half, scenario, tmp_path)


def test_head_and_304_have_no_body_but_a_length(tmp_path: Path) -> None:
    def sized(exchange: Exchange) -> None:
        if exchange.head.method == b"HEAD":
            exchange.respond(200, b"", length=12345)
        else:
            exchange.respond(304, b"", b"nothing of this is sent")

    async def scenario(_: HttpServer, path: Path) -> None:
        answer = await talk(path, head(b"HEAD / HTTP/1.1") + head(b"GET / HTTP/1.1", CLOSE))
        first, second, rest = answer.split(b"\r\n\r\n")
        assert b"content-length: 12345" in first
        assert second.startswith(b"HTTP/1.1 304") and b"content-length" not in second
        assert rest == b""

    run(sized, scenario, tmp_path)


def test_old_and_offering_clients_are_served_plainly(tmp_path: Path) -> None:
    async def scenario(_: HttpServer, path: Path) -> None:
        assert (await talk(path, b"GET /old HTTP/1.0\r\n\r\n")).endswith(b"/old|")
        offer = head(b"GET /new HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c")
        assert (await talk(path, offer)).endswith(b"/new|")
        proxied = await talk(path, head(b"GET http://h/proxied HTTP/1.1", CLOSE))
        assert proxied.endswith(b"/proxied|")

    run(echo, scenario, tmp_path)


def test_trailers_do_not_become_headers_of_the_next_request(tmp_path: Path) -> None:
    def names(exchange: Exchange) -> None:
        exchange.collect(1000, lambda e, _: e.respond(200, b"", b",".join(e.head.headers)), lambda *_: None)

    async def scenario(_: HttpServer, path: Path) -> None:
        chunked = head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
        answer = await talk(path, chunked + b"0\r\nX-Evil: 1\r\n\r\n" + head(b"GET / HTTP/1.1", CLOSE))
        assert b"evil" not in answer
        assert answer.endswith(b"host,connection")

    run(names, scenario, tmp_path)


def test_closing_lets_what_is_under_way_finish_and_refuses_the_rest(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await go.wait()
        exchange.respond(200, b"", b"finished")

    async def scenario(server: HttpServer, path: Path) -> None:
        busy = asyncio.ensure_future(talk(path, head(b"GET / HTTP/1.1")))
        idle = asyncio.ensure_future(talk(path, b""))
        await until(lambda: len(server.connections) == 2 and bool(server.tasks))
        closing = asyncio.ensure_future(server.close(30))
        assert await idle == b""
        with pytest.raises(OSError):
            await talk(path, head(b"GET / HTTP/1.1"))
        go.set()
        answer = await busy
        assert answer.endswith(b"finished") and b"connection: close" in answer
        await closing

    run(slow, scenario, tmp_path)


def test_a_request_that_was_sent_before_the_server_stops_is_answered(tmp_path: Path) -> None:
    async def scenario(server: HttpServer, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            await until(lambda: len(server.connections) == 1)
            client.sendall(head(b"GET /last HTTP/1.1"))  # and before it has read that
            await server.close(OVER_S)
            client.settimeout(OVER_S)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.endswith(b"connection: close\r\n\r\n/last|")

    run(echo, scenario, tmp_path)


def test_who_breaks_off_an_answer_is_not_told_that_the_client_went(tmp_path: Path) -> None:
    told: list[str] = []

    def half(exchange: Exchange) -> None:
        exchange.on_lost = lambda: told.append("lost")
        exchange.start(200, length=10)
        exchange.push(b"half")
        exchange.abort()

    async def scenario(server: HttpServer, path: Path) -> None:
        await talk(path, head(b"GET / HTTP/1.1"))
        await until(lambda: not server.connections)
        assert told == []

    run(half, scenario, tmp_path)


def test_callbacks_stream_a_body_and_can_hold_the_client(tmp_path: Path) -> None:
    received: list[bytes] = []

    def streaming(exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()

        def on_data(data: bytes) -> None:
            received.append(data)
            exchange.pause()
            loop.call_soon(exchange.resume)

        exchange.stream(on_data, lambda: exchange.respond(200, b"", b"taken"), lambda error: exchange.abort())

    async def scenario(_: HttpServer, path: Path) -> None:
        body = bytes(range(256)) * 8192
        request = head(b"POST / HTTP/1.1", b"Content-Length: %d" % len(body), CLOSE) + body
        assert (await talk(path, request)).endswith(b"taken")
        assert b"".join(received) == body

    run(streaming, scenario, tmp_path)


def test_a_header_cannot_smuggle_a_line() -> None:
    with pytest.raises(UnsafeField):
        encode_fields([("a", "b\r\nc: d")])
    assert encode_fields([("a", "b")]) == b"a: b\r\n"


def test_too_large_says_so() -> None:
    assert BodyTooLarge(5).status == 413


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 40), max_size=30), junk=st.binary(max_size=40))
def test_however_the_bytes_are_cut_the_answers_are_the_same(
    tmp_path: Path, cuts: list[int], junk: bytes
) -> None:
    requests = (
        head(b"POST /1 HTTP/1.1", b"Content-Length: 5")
        + b"hello"
        + head(b"POST /2 HTTP/1.1", b"Transfer-Encoding: chunked")
        + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        + head(b"GET /3 HTTP/1.1", CLOSE)
        + junk
    )

    async def scenario(_: HttpServer, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        at = 0
        for cut in [*cuts, len(requests)]:
            if not writer.is_closing():  # else only junk is left, and the server has answered and closed
                writer.write(requests[at : at + cut])
            await asyncio.sleep(0)
            at += cut
        try:
            answer = await reader.read(-1)
        except ConnectionError:
            return  # the junk was still on its way when the server closed
        bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"/1|hello", b"/2|abcde", b"/3|"]
        writer.close()

    run(echo, scenario, tmp_path)
