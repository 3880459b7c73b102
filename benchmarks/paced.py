"""A client that keeps its pace: so many requests a second, whether answers come or not, from a process of its own.

An answer's time counts from when its request was due, so that one that had to wait for a connection, because those
before it are still waited for, shows. Where it may, the client goes before everything else on the machine: it is the
server that is to be short of processors, not its user. As a script: `paced PORT REQUESTS RATE SECONDS`.
"""

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Paced:
    """What the client saw. `goes_first`: it goes before everything else; `late_p99_ms`: it was late all the same,
    by what the kernel or the machine below it did meanwhile. No server can do better than that.
    """

    asked: int
    errors: int
    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    goes_first: bool


def begin(port: int, requests: Path, rate: float, seconds: float) -> "subprocess.Popen[str]":
    """The client's process; `finish` waits for it."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.paced",
        f"{port}",
        str(requests),
        f"{rate:g}",
        f"{seconds:g}",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def finish(client: "subprocess.Popen[str]") -> Paced:
    output, _ = client.communicate()
    if client.returncode != 0:
        raise RuntimeError(f"the paced client ended with {client.returncode}")
    return Paced(**json.loads(output))


def read_requests(path: Path) -> list[bytes]:
    """As `load.write_requests` wrote them."""
    found, data = [], path.read_bytes()
    while data:
        length, _, data = data.partition(b"\n")
        found.append(data[: int(length)])
        data = data[int(length) + 1 :]
    return found


class _Client:
    def __init__(self, port: int, requests: list[bytes], rate: float, seconds: float) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._count = int(rate * seconds)
        self._selector = selectors.SelectSelector()  # epoll knows whole milliseconds only
        self._free: deque[socket.socket] = deque()
        self._since: dict[socket.socket, float] = {}
        self._received: dict[socket.socket, bytes] = {}
        self.took_ms: list[float] = []
        self.late_ms: list[float] = []
        self.errors = 0

    def run(self) -> None:
        for _ in range(CONNECTIONS):
            self._connect()
        began, sent = time.perf_counter(), 0
        while sent < self._count or self._since:
            now = time.perf_counter()
            while sent < self._count and self._free and began + sent / self._rate <= now:
                self._send(self._free.popleft(), sent, began + sent / self._rate)
                sent += 1
            can_send = sent < self._count and self._free
            wait = max(0.0, began + sent / self._rate - time.perf_counter()) if can_send else 1.0
            for key, _ in self._selector.select(min(wait, 1.0)):
                self._receive(key.fileobj)  # type: ignore[arg-type]
            self._give_up_on_late_ones()

    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ)
        self._free.append(connection)

    def _send(self, connection: socket.socket, number: int, due: float) -> None:
        self.late_ms.append((time.perf_counter() - due) * 1e3)
        self._since[connection] = due
        self._received[connection] = b""
        connection.sendall(self._requests[number % len(self._requests)])

    def _receive(self, connection: socket.socket) -> None:
        part = connection.recv(1 << 16)
        if not part:
            self._lose(connection)
            return
        data = self._received[connection] = self._received.get(connection, b"") + part
        head, found, body = data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        if not found or len(body) < int(length):
            return
        self._note(connection, is_error=not head.startswith(b"HTTP/1.1 200 "))
        self._free.append(connection)

    def _give_up_on_late_ones(self) -> None:
        limit = time.perf_counter() - TIMEOUT_S
        for connection in [each for each, since in self._since.items() if since < limit]:
            self._lose(connection)

    def _lose(self, connection: socket.socket) -> None:
        if connection in self._since:
            self._note(connection, is_error=True)
        else:
            self._free.remove(connection)
        self._selector.unregister(connection)
        connection.close()
        self._connect()

    def _note(self, connection: socket.socket, *, is_error: bool) -> None:
        self.took_ms.append((time.perf_counter() - self._since.pop(connection)) * 1e3)
        self.errors += is_error


def _go_first() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return True


def main() -> None:
    port, path, rate, seconds = sys.argv[1:]
    client = _Client(int(port), read_requests(Path(path)), float(rate), float(seconds))
    goes_first = _go_first()
    client.run()
    took, late = (statistics.quantiles(each, n=100) for each in (client.took_ms, client.late_ms))
    print(
        json.dumps(
            {
                "asked": len(client.took_ms),
                "errors": client.errors,
                "p50_ms": took[49],
                "p99_ms": took[98],
                "late_p99_ms": late[98],
                "goes_first": goes_first,
            }
        )
    )


if __name__ == "__main__":
    main()
