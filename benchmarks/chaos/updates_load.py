"""Load on an endpoint that changes versions: who answered what, and when it was asked.

Requests are signed one by one and sent on plain keep-alive sockets, at a pace, without retries. Which version answered
is told by its prediction alone; whatever is no version's prediction is a failure. Times are the system's, as the server
writes them into its records.
"""

import hashlib
import math
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from benchmarks.chaos.askers import Askers
from benchmarks.chaos.experiment import hold
from benchmarks.platform import Platform
from clary.wire.sigv4 import Credentials, sign


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked, and what each version says to it. All versions differ in every answer."""

    bodies: Sequence[bytes]
    answers: Mapping[str, Sequence[float]]

    def who(self, number: int, status: int, body: bytes) -> str:
        """The version that gave this answer, or else what is wrong with it."""
        if status != 200:
            return f"{status} {body[:160].decode(errors='replace')}"
        try:
            value = float(body)
        except ValueError:
            return f"no number: {body[:80]!r}"
        for name, expected in self.answers.items():
            if math.isclose(value, expected[number], rel_tol=1e-5, abs_tol=1e-4):
                return name
        return f"nobody's prediction: {value}"


class Answer(NamedTuple):
    """`who` is the version that answered; or what was wrong, and then `failed`."""

    asked_at: float
    told_at: float
    who: str
    failed: bool


class PacedLoad(Askers):
    """Threads that together ask `rate` times a second, or as often as the machine lets them."""

    def __init__(
        self, platform: Platform, endpoint: str, questions: Questions, rate: float = 500.0, threads: int = 12
    ) -> None:
        self.answers: list[Answer] = []  # in the order in which they came
        self._platform, self._endpoint, self._questions = platform, endpoint, questions
        self._pause_s = threads / rate
        self._newest = [0.0] * threads  # when each thread asked what it was answered last
        super().__init__(partial(self._run, number, threads) for number in range(threads))

    def until(self, more: int, timeout_s: float = 60.0) -> None:
        """Waits for so many more answers, and for those to all that is asked already. Raises `Broken` without them."""
        now, deadline = time.time(), time.monotonic() + timeout_s
        goal = len(self.answers) + more
        while len(self.answers) < goal or min(self._newest) < now:
            hold(time.monotonic() < deadline, f"{more} requests were not answered in {timeout_s:.0f} s")
            time.sleep(0.01)

    def _run(self, first: int, step: int) -> None:
        connection = _Connection(self._platform, self._endpoint)
        number, due = first, time.monotonic() + first * self._pause_s / step
        while not self.is_over.is_set():
            wait_s = due - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            due = max(
                due + self._pause_s, time.monotonic() - self._pause_s
            )  # what is late is not made up for
            number = (number + step) % len(self._questions.bodies)
            asked_at = time.time()
            try:
                status, body = connection.ask(self._questions.bodies[number])
            except OSError as error:
                who, failed = f"{type(error).__name__}: {error}", True
                connection.close()
                time.sleep(0.01)  # where nobody listens it would spin
            else:
                who = self._questions.who(number, status, body)
                failed = who not in self._questions.answers
            self.answers.append(Answer(asked_at, time.time(), who, failed))
            self._newest[first] = asked_at
        connection.close()


class _Connection:
    """One keep-alive connection, made when it is needed."""

    def __init__(self, platform: Platform, endpoint: str) -> None:
        key = platform.running.key
        self._credentials = Credentials(key.access_key_id, key.secret_access_key)
        self._port = platform.port
        self._path = f"/endpoints/{endpoint}/invocations"
        self._socket: socket.socket | None = None
        self._held = b""

    def ask(self, body: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30.0)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._held = b""
        self._socket.sendall(self._signed(body))
        head = self._take_until(b"\r\n\r\n").lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = self._take(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _signed(self, body: bytes) -> bytes:
        headers = {"host": f"127.0.0.1:{self._port}", "content-type": "text/csv"}
        headers |= sign(
            self._credentials,
            "POST",
            self._path,
            headers,
            hashlib.sha256(body).hexdigest(),
            service="sagemaker",
            region="us-east-1",
            at=datetime.now(UTC),
        )
        lines = [f"POST {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body

    def _take_until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._receive()
        taken, _, self._held = self._held.partition(end)
        return taken

    def _take(self, length: int) -> bytes:
        while len(self._held) < length:
            self._receive()
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the connection ended without an answer")
        self._held += data


def failures(answers: Iterable[Answer]) -> Counter[str]:
    return Counter(answer.who for answer in answers if answer.failed)


def asked_between(answers: Iterable[Answer], since: float, until: float) -> list[Answer]:
    """Those whose whole way from question to answer lies in between."""
    return [answer for answer in answers if answer.asked_at > since and answer.told_at < until]


def per_second(answers: Sequence[Answer]) -> float:
    if len(answers) < 2:
        return 0.0
    return len(answers) / (answers[-1].told_at - answers[0].told_at)


def deviation(hits: int, expected: float, variance: float) -> float:
    """In standard deviations; what cannot vary and does is infinitely many."""
    if variance > 0:
        return (hits - expected) / math.sqrt(variance)
    return 0.0 if hits == expected else math.copysign(math.inf, hits - expected)
