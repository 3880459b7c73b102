"""Request heads and response fields as bytes: what the HTTP server, the signature check and the gateway share.

Bytes all the way, because a signature is computed over bytes and nothing on the hot path needs text.
"""

from collections.abc import Iterable
from http import HTTPStatus


class Head:
    """A request line and its headers. Names are lower case; a repeated header's values are joined by a comma.

    `path` and `query` are raw: still percent-encoded.
    """

    __slots__ = ("headers", "method", "path", "query", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.path, _, self.query = target.partition(b"?")

    def get(self, name: bytes) -> bytes:
        """A header's value, b"" when it is absent."""
        return self.headers.get(name, b"")

    def text(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class UnsafeField(ValueError):
    """A header that cannot be sent: it would end its line and begin another."""


_BREAKS = ("\r", "\n", "\0")


def encode_fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines as they go out, each ended. A line break inside a value is refused, not sent."""
    lines = []
    for name, value in headers:
        if any(mark in value or mark in name for mark in _BREAKS):
            raise UnsafeField(f"the value of {name!r} holds a line break")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1", "replace")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}
