"""The lean client for Unix sockets, which wrk cannot reach: a closed loop over some connections, no library in between.

It costs about 15 µs of processor time a request, so it is for servers whose answers take longer than that, and for
latencies that are compared with each other.
"""

import selectors
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answers:
    """What one run saw; `took_us` of every request, in no particular order."""

    rate: float
    took_us: list[float]
    errors: int

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.took_us, n=100)[percent - 1]


def run(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    """Every connection sends the next request when it has the answer; what is under way at the end does not count."""
    waiting = selectors.EpollSelector()
    sockets = [_connect(address) for _ in range(connections)]
    try:
        for each in sockets:
            waiting.register(each, selectors.EVENT_READ)
        return _drive(waiting, sockets, requests, seconds)
    finally:
        waiting.close()
        for each in sockets:
            each.close()


def _drive(
    waiting: selectors.EpollSelector, sockets: list[socket.socket], requests: Sequence[bytes], seconds: float
) -> Answers:
    clock = time.perf_counter
    took: list[float] = []
    errors, sent, count = 0, 0, len(requests)
    began = clock()
    end = began + seconds
    since: dict[socket.socket, float] = {}
    for each in sockets:
        since[each] = clock()
        each.sendall(requests[sent % count])
        sent += 1
    while (now := clock()) < end:
        for key, _ in waiting.select(end - now):
            each = key.fileobj  # type: ignore[assignment]
            answer = _receive(each)
            now = clock()
            took.append((now - since[each]) * 1e6)
            errors += not answer.startswith(b"HTTP/1.1 200 ")
            since[each] = now
            each.sendall(requests[sent % count])
            sent += 1
    return Answers(len(took) / (clock() - began), took, errors)


def _receive(connection: socket.socket) -> bytes:
    """One whole answer. Small ones come in one piece."""
    data = connection.recv(1 << 16)
    while not _is_whole(data):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionError(f"the server closed the connection after {data[:200]!r}")
        data += part
    return data


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


def _connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(address.removeprefix("unix:"))
    return connection
