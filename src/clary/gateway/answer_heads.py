"""The heads of our own model server's answers.

It writes the same few heads again and again, so what a head means is remembered under its very bytes and the usual
answer costs one look-up. httptools judges each head once.
"""

import httptools

from clary.gateway.upstream import Headers

LONGEST_HEAD = 64 << 10
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 1024

CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"


class Unreadable(Exception):
    """No HTTP, or an answer whose end its head does not tell."""


class AnswerHead:
    """What an answer's head says."""

    __slots__ = ("content_type", "headers", "is_success", "keeps_alive", "length", "passed_on", "status")

    def __init__(self, status: int, headers: Headers, length: int, keeps_alive: bool) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.keeps_alive = keeps_alive
        self.is_success = 200 <= status < 300
        self.passed_on = passed_on(headers, b"Content-Type")
        self.content_type = next((value for name, value in headers if name == b"content-type"), b"")


def passed_on(headers: Headers, content_type_name: bytes) -> bytes:
    """Header lines for the caller: of all that a container says only what SageMaker passes on."""
    lines = b""
    for name, value in headers:
        if name == b"content-type":
            lines += b"%b: %b\r\n" % (content_type_name, value)
        elif name == CUSTOM_ATTRIBUTES:
            lines += b"X-Amzn-SageMaker-Custom-Attributes: %b\r\n" % value
    return lines


class AnswerHeads(dict[bytes, AnswerHead]):
    """A head's bytes, with the empty line → what it says. Raises Unreadable."""

    def __missing__(self, text: bytes) -> AnswerHead:
        head = _parse(text)
        if len(text) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[text] = head
        return head


def _parse(text: bytes) -> AnswerHead:
    seen = _Seen()
    parser = seen.parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(text)
    except httptools.HttpParserError as error:
        raise Unreadable(str(error)) from error
    finally:
        seen.parser = None  # or the two would wait for the garbage collector
    headers = dict(seen.headers)
    if seen.status < 200 or b"transfer-encoding" in headers:
        raise Unreadable(f"status {seen.status} or its framing is not expected here")
    if seen.status in (204, 304):
        length = 0
    elif b"content-length" in headers:
        length = int(headers[b"content-length"])
    else:
        raise Unreadable("the answer's length is not known")
    return AnswerHead(seen.status, seen.headers, length, seen.keeps_alive)


class _Seen:
    """httptools' callbacks."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.status = 0
        self.keeps_alive = False
        self.parser: httptools.HttpResponseParser | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.parser is not None:
            self.status = self.parser.get_status_code()
            self.keeps_alive = self.parser.should_keep_alive()
