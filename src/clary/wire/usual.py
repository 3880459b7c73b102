"""Requests in their usual form, read without a parser: one whole request in one piece, with nothing unusual about it.

Clients send the same header lines again and again, so what a line means is remembered under its very bytes, and a
request costs a look-up for each line. Remembered is only what a line says, never what came of it: whether the
signature is right is decided anew for every request, over all of the head.

This reads a strict subset of HTTP/1.1 and says None to everything else, which then goes to the real parser and its
rules: repeated headers, chunks, `Expect`, `Connection` other than keep-alive, an `Upgrade`, any byte that could be
read in two ways. What it does read, it reads as the parser does (the tests compare the two).
"""

import re

from clary.wire.heads import Head

_REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (/[A-Za-z0-9/_.~%?=&+,:;@!$'()*-]*) HTTP/1\.1")
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_IN_VALUES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_LENGTH = re.compile(rb"[0-9]{1,12}")

_NOT_USUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"trailer", b"te"))
_EACH_TIME_ANOTHER = frozenset((b"authorization", b"amz-sdk-invocation-id", b"x-amz-content-sha256"))

_REMEMBERED = 2048
_LONGEST_REMEMBERED = 1024


class UsualRequests:
    """Reads such requests. `most_headers` and `most_bytes` are the limits of a head."""

    def __init__(self, *, most_headers: int, most_bytes: int) -> None:
        self._most_headers = most_headers
        self._most_bytes = most_bytes
        self._request_lines: dict[bytes, tuple[bytes, bytes]] = {}
        self._field = _Fields().__getitem__

    def read(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body when `data` is exactly one usual request."""
        text, end, body = data.partition(b"\r\n\r\n")
        lines = text.split(b"\r\n")
        if not end or len(text) > self._most_bytes or len(lines) > self._most_headers:
            return None
        first = lines.pop(0)
        try:
            method, target = self._request_lines.get(first) or self._read_request_line(first)
            headers = dict(map(self._field, lines))
        except _NotUsual:
            return None
        if len(headers) != len(lines) or int(headers.get(b"content-length", b"0")) != len(body):
            return None  # a header stands twice; there is less than the body, or more
        return Head(method, target, headers), body

    def _read_request_line(self, line: bytes) -> tuple[bytes, bytes]:
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            raise _NotUsual
        request = found[1], found[2]
        if len(line) <= _LONGEST_REMEMBERED:
            if len(self._request_lines) >= _REMEMBERED:
                self._request_lines.clear()
            self._request_lines[line] = request
        return request


class _NotUsual(Exception):
    """A line that the real parser must judge."""


class _Fields(dict[bytes, tuple[bytes, bytes]]):
    """Header line → name in lower case and value."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[bytes, bytes] = {}

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        raw, colon, value = line.partition(b":")
        name = self.names.get(raw) or self._read_name(raw)
        if not colon or value.translate(None, _IN_VALUES):
            raise _NotUsual
        value = value.strip(b" \t")
        if name == b"connection" and value.lower() != b"keep-alive":
            raise _NotUsual
        if name == b"content-length" and _LENGTH.fullmatch(value) is None:
            raise _NotUsual
        if name not in _EACH_TIME_ANOTHER and len(line) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = name, value
        return name, value

    def _read_name(self, raw: bytes) -> bytes:
        name = raw.lower()
        if _NAME.fullmatch(raw) is None or name in _NOT_USUAL:
            raise _NotUsual
        if len(raw) <= _LONGEST_REMEMBERED:
            if len(self.names) >= _REMEMBERED:
                self.names.clear()
            self.names[raw] = name
        return name
