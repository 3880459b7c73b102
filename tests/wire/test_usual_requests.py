"""What is read without the parser means to the parser exactly the same; everything unusual is left to it."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.wire import usual
from clary.wire.usual import UsualRequests

PLAIN = b"POST /endpoints/a/invocations HTTP/1.1\r\nHost: here\r\nX-Amz-Date:  2026 \r\nContent-Length: 3\r\n\r\nabc"


def reader() -> UsualRequests:
    return UsualRequests(most_headers=20, most_bytes=2000)


class Parsed:
    """A request as llhttp reads it."""

    def __init__(self, data: bytes) -> None:
        self.target = self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.repeated = self.keeps_alive = False
        self.requests = 0
        self.begun = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method()

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.repeated |= name.lower() in self.headers
        self.headers[name.lower()] = value.rstrip()

    def on_headers_complete(self) -> None:
        self.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.requests += 1


NAMES = (
    b"Host|Content-Length|content-length|Transfer-Encoding|Connection|Upgrade|Expect|TE|X-Amz-Date|Accept|X a|Bad\x00"
).split(b"|")
VALUES = (
    b"here|3|0|03|+3|3,3|chunked|identity|keep-alive|close|a\tb|  padded  |\xe9|a\rb|a\nb|\x00||100-continue|h2c"
).split(b"|")
LINES = st.builds(
    lambda name, colon, value: name + colon + value,
    st.sampled_from(NAMES),
    st.sampled_from([b": ", b":", b" : ", b":\t", b""]),
    st.sampled_from(VALUES) | st.binary(max_size=5),
)
FIRST = st.sampled_from(
    b"POST / HTTP/1.1|GET /a%20b?c=d HTTP/1.1|PUT  / HTTP/1.1|POST / HTTP/1.0|POST http://x/ HTTP/1.1|post / HTTP/1.1"
    b"|POST /a#b HTTP/1.1|POST /\xe9 HTTP/1.1|POST / HTTP/1.1 |CONNECT a:1 HTTP/1.1|BREW / HTTP/1.1|POST /".split(
        b"|"
    )
)


@given(FIRST, st.lists(LINES, max_size=4), st.sampled_from([b"", b"abc", b"abcPOST / HTTP/1.1\r\n\r\n"]))
@settings(max_examples=400, deadline=None)
def test_Z01_what_it_reads_the_parser_reads_the_same(first: bytes, lines: list[bytes], body: bytes) -> None:
    data = b"\r\n".join([first, *lines]) + b"\r\n\r\n" + body
    requests = reader()
    for _ in range(2):  # as something new, and as something remembered
        read = requests.read(data)
        if read is None:
            continue
        head, found = read
        parsed = Parsed(data)
        assert (parsed.requests, parsed.begun, parsed.keeps_alive, parsed.repeated) == (1, 1, True, False)
        assert (head.method, head.target, head.headers, found) == (
            parsed.method,
            parsed.target,
            parsed.headers,
            parsed.body,
        )


def test_the_usual_is_read() -> None:
    head, body = reader().read(PLAIN) or pytest.fail("it is as usual as can be")
    assert (head.method, head.path, body) == (b"POST", b"/endpoints/a/invocations", b"abc")
    assert head.headers == {b"host": b"here", b"x-amz-date": b"2026", b"content-length": b"3"}
    assert reader().read(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: keep-alive\r\n\r\n") is not None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN[:-1], id="less than the body"),
        pytest.param(PLAIN + b"x", id="more than the body"),
        pytest.param(PLAIN + PLAIN, id="two"),
        pytest.param(PLAIN[:30], id="half a head"),
        pytest.param(PLAIN.replace(b"Host: here", b"Host: here\r\nhost: there"), id="repeated"),
        pytest.param(PLAIN.replace(b"Host: here", b"Transfer-Encoding: chunked"), id="chunked"),
        pytest.param(PLAIN.replace(b"Host: here", b"Expect: 100-continue"), id="expects"),
        pytest.param(PLAIN.replace(b"Host: here", b"Connection: close"), id="closes"),
        pytest.param(PLAIN.replace(b"Host: here", b"Upgrade: h2c"), id="upgrades"),
        pytest.param(PLAIN.replace(b"Host: here", b"Host: he\nre"), id="a bare line feed"),
        pytest.param(PLAIN.replace(b"Host: here", b"Host: here\r\n folded"), id="folded"),
        pytest.param(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), id="1.0"),
        pytest.param(PLAIN.replace(b": 3", b": +3"), id="a signed length"),
        pytest.param(PLAIN.replace(b"Host", b"x" * 2000), id="a long head"),
        pytest.param(
            PLAIN.replace(b"Host", b"".join(b"h%d: x\r\n" % n for n in range(30)) + b"Host"), id="many"
        ),
    ],
)
def test_Z01_everything_else_is_left_to_the_parser(data: bytes) -> None:
    assert reader().read(data) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual, "_REMEMBERED", 10)
    requests = reader()
    for number in range(100):
        data = b"GET /%d HTTP/1.1\r\nh%d: %d\r\nAuthorization: %d\r\n\r\n" % ((number,) * 4)
        head, _ = requests.read(data) or pytest.fail("usual")
        assert head.headers == {b"h%d" % number: b"%d" % number, b"authorization": b"%d" % number}
    fields = requests._field.__self__  # type: ignore[attr-defined]
    assert max(len(requests._request_lines), len(fields), len(fields.names)) <= 10
    assert not any(line.startswith(b"Authorization") for line in fields)
