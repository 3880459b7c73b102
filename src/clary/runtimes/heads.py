"""Request heads and response heads of HTTP/1.1, as far as a model server needs them.

A client sends the same head again and again, so a parsed head is remembered under its very bytes: what a head
means depends on nothing else. That makes the usual request cost one look-up instead of a parse. httptools
(llhttp, strict) judges every head once, so ambiguous framing (two lengths, a length beside chunks) is refused.
"""

from dataclasses import dataclass
from http import HTTPStatus

import httptools

from clary.runtimes.contract import InvocationHead, InvocationResponse

LONGEST_HEAD = 32 << 10
_REMEMBERED_HEADS = 1024


class MalformedHead(Exception):
    """What came is no HTTP request."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    method: str
    path: str
    length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    invocation: InvocationHead
    query: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it begins the usual request: an invocation of a known length that says no more."""
        is_invocation = self.method == "POST" and self.path == "/invocations"
        return is_invocation and self.keep_alive and not self.chunked and not self.expects_continue


class HeadCache:
    """Parses heads, remembering them."""

    def __init__(self) -> None:
        self._known: dict[bytes, RequestHead] = {}
        self.plain: dict[bytes, tuple[InvocationHead, int]] = {}
        """The remembered heads of usual requests: what they mean to a model, and the length of their bodies."""

    def parse(self, head: bytes) -> RequestHead:
        """`head` up to and with its empty line. Raises `MalformedHead`."""
        known = self._known.get(head)
        if known is not None:
            return known
        parsed = parse_head(head)
        if len(self._known) >= _REMEMBERED_HEADS:
            self._known.clear()
            self.plain.clear()
        self._known[head] = parsed
        if parsed.is_plain:
            self.plain[head] = parsed.invocation, parsed.length
        return parsed


def parse_head(head: bytes) -> RequestHead:
    seen = _Seen()
    parser = seen.parser = httptools.HttpRequestParser(seen)
    _feed(parser, head)
    seen.parser = None  # or the two would wait for the garbage collector
    if not seen.complete:
        raise MalformedHead("the head of the request is incomplete")
    if parser.get_http_version() not in ("1.0", "1.1"):
        raise MalformedHead("only HTTP/1.0 and HTTP/1.1 are spoken here")
    if head.count(b"\n") != head.count(b"\r\n"):  # or a second request could hide in this head
        raise MalformedHead("a line of the head ends without a carriage return")
    try:
        target = seen.url.decode("ascii")
        headers = tuple(
            (name.decode("ascii").lower(), value.decode("latin-1")) for name, value in seen.headers
        )
    except UnicodeDecodeError as error:
        raise MalformedHead("the request's target or a header's name is not ASCII") from error
    fields = dict(headers)
    return RequestHead(
        method=parser.get_method().decode("ascii"),
        path=target.partition("?")[0],
        length=int(fields.get("content-length", "0")),
        chunked="transfer-encoding" in fields,  # llhttp lets nothing else than a final `chunked` pass
        keep_alive=seen.keep_alive,
        expects_continue=fields.get("expect", "").lower() == "100-continue",
        invocation=InvocationHead(
            content_type=fields.get("content-type"),
            accept=fields.get("accept"),
            custom_attributes=fields.get("x-amzn-sagemaker-custom-attributes", ""),
            headers=headers,
        ),
        query=target.partition("?")[2],
    )


def check_beginning(data: bytes) -> None:
    """Raises `MalformedHead` when `data`, a head that is not complete yet, can never become one."""
    _feed(httptools.HttpRequestParser(_Seen()), data)


def encode_response(response: InvocationResponse, *, keep_alive: bool) -> bytes:
    status, content_type, body, custom_attributes, session_fields = response
    if custom_attributes or session_fields or not keep_alive or not body:
        return _encode_unusual(response, keep_alive)
    start = _STARTS.get((status, content_type)) or _start(status, content_type)
    return b"%b%d\r\n\r\n%b" % (start, len(body), body)


_PHRASES = {status.value: status.phrase for status in HTTPStatus}  # a handler may have a number of its own
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STARTS: dict[tuple[int, str], bytes] = {
    (200, kind): b"HTTP/1.1 200 OK\r\nContent-Type: " + kind.encode() + b"\r\nContent-Length: "
    for kind in ("text/csv; charset=utf-8", "application/json", "application/jsonlines")
}


def _encode_unusual(response: InvocationResponse, keep_alive: bool) -> bytes:
    start = _start(response.status, response.content_type if response.body else "")
    lines = [start, b"%d\r\n" % len(response.body)]
    if response.status == HTTPStatus.NO_CONTENT:
        lines = [_start(response.status, "").removesuffix(b"Content-Length: ")]
    if response.custom_attributes:
        attributes = _header_value(response.custom_attributes)
        lines.append(b"X-Amzn-SageMaker-Custom-Attributes: " + attributes + b"\r\n")
    for name, value in response.session_fields:
        lines.append(b"%b: %b\r\n" % (name.encode(), _header_value(value)))
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    return b"".join([*lines, b"\r\n", response.body])


def _start(status: int, content_type: str) -> bytes:
    start = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unnamed')}\r\n".encode()
    if content_type:
        start += b"Content-Type: " + _header_value(content_type) + b"\r\n"
    return start + b"Content-Length: "


def _header_value(text: str) -> bytes:
    """Without what could end the header early."""
    return "".join(c if c.isprintable() else " " for c in text).encode("latin-1", "replace")


def _feed(parser: httptools.HttpRequestParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except (
        httptools.HttpParserUpgrade
    ):  # an offer to change the protocol, which is declined by not answering it
        return
    except httptools.HttpParserError as error:
        raise MalformedHead(f"the request cannot be read: {error}") from error


class _Seen:
    """httptools' callbacks."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.keep_alive = False
        self.parser: httptools.HttpRequestParser | None = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True
        if self.parser is not None:  # it only knows until the request is complete
            self.keep_alive = self.parser.should_keep_alive()
