"""HTTP requests and responses as the wire layer passes them around, without a transport."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clary.wire.operations import FileBody, Readable

HeaderList = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path` and `query` are raw (still percent-encoded); header names are lower case.

    Repeated headers are joined by a comma, as RFC 9110 allows. `body` is whole, or streaming for the
    operations whose input streams.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | Readable = b""

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class Response:
    """One response. A body that is not bytes is streamed: chunked unless `content-length` stands in the headers."""

    status: int
    headers: HeaderList = field(default_factory=tuple)
    body: bytes | FileBody | Iterator[bytes] = b""
