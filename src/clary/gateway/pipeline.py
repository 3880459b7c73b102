"""Small requests to our own model server: those of one turn of the loop leave together, on one connection.

The model server answers requests of a connection in their order, and predicts together what it finds there together.
So at many requests a second one write, one read and one prediction serve many of them, and at few nobody waits: a
turn lasts no longer than it takes to read what clients have sent already.

A connection carries one group at a time. The next turn's group takes another one, so groups do not wait for each
other; within a group the requests share the time-out, having begun in the same turn. Only for targets whose route
says so, and only for requests so small that none holds up the others.

Answers are taken whole: the model server makes them whole, from requests that are small.

When a connection ends, each request without its answer is told on its own what is known (`Broken`), and each
tries again, or not, for itself, on a connection of its own.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from logging import getLogger
from typing import Any, Protocol

from clary.gateway.answer_heads import LONGEST_HEAD, AnswerHead, AnswerHeads, Unreadable
from clary.gateway.upstream import IDLE_CONNECTIONS, IDLE_S, Broken, Open, connect, unconnected

log = getLogger(__name__)

SMALL_REQUEST = 16 << 10
MOST_TOGETHER = 32


class Member(Protocol):
    """Who waits for one of the answers. Exactly one of these is called, once, on the loop; it must not block."""

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        """The whole answer."""

    def on_broken(self, how: Broken) -> None:
        """There will be none."""


class Pipelines:
    """The connections to one address and the group that this turn's requests make.

    `connections` is shared by all upstreams: everything that is open, for `sweep`.
    """

    __slots__ = (
        "_connecting",
        "_data",
        "_deadline",
        "_idle",
        "_is_closed",
        "_members",
        "address",
        "connections",
        "heads",
        "loop",
    )

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, connections: set[Open]) -> None:
        self.address = address
        self.loop = loop
        self.connections = connections
        self.heads = AnswerHeads()
        self._data: list[bytes] = []
        self._members: list[Member] = []
        self._deadline = 0.0
        self._idle: list[Pipeline] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def send(self, request: Iterable[bytes], member: Member, deadline: float) -> None:
        """Sends a request (its pieces) with the others of this turn."""
        members = self._members
        if not members:
            self._deadline = deadline
            self.loop.call_soon(self._flush, members)
        members.append(member)
        self._data += request
        if len(members) >= MOST_TOGETHER:
            self._flush(members)

    def put_back(self, connection: "Pipeline") -> None:
        if self._is_closed or len(self._idle) >= IDLE_CONNECTIONS:
            connection.abort()
        else:
            self._idle.append(connection)

    def forget(self, connection: "Pipeline") -> None:
        self.connections.discard(connection)
        self.take_out(connection)

    def take_out(self, connection: "Pipeline") -> None:
        """It is not idle any more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """No connection stays idle any more; those in use end with their answers."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _flush(self, members: list[Member]) -> None:
        if members is not self._members or not members:
            return  # this group was full, and has gone
        data = b"".join(self._data)
        self._data = []
        self._members = []
        if self._idle:
            self._idle.pop().begin(data, members, self._deadline)
            return
        task = self.loop.create_task(self._connect_and_begin(data, members, self._deadline))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_begin(self, data: bytes, members: list[Member], deadline: float) -> None:
        try:
            connection = await connect(self.loop, self.address, lambda: Pipeline(self), deadline)
        except OSError:
            how = unconnected(self.loop, deadline)
            for member in members:
                member.on_broken(how)
            return
        connection.begin(data, members, deadline)


class Pipeline(asyncio.Protocol):
    """One connection; at most one group of requests at a time."""

    __slots__ = (
        "_deadline",
        "_group",
        "_has_answered",
        "_heads",
        "_idle_since",
        "_is_used",
        "_needed",
        "_owner",
        "_received",
        "_size",
        "_transport",
        "_will_end",
    )

    def __init__(self, owner: Pipelines) -> None:
        self._owner = owner
        self._heads = owner.heads
        self._transport: Any = None
        self._group: deque[Member] = deque()  # who has no answer yet
        self._deadline = 0.0
        self._has_answered = False  # somebody of this group
        self._is_used = False  # by an earlier group
        self._will_end = False  # the other side said so
        self._received: list[bytes] = []  # of an answer that is not whole
        self._size = 0
        self._needed = 0
        self._idle_since = owner.loop.time()

    def begin(self, data: bytes, members: list[Member], deadline: float) -> None:
        self._group.extend(members)
        self._deadline = deadline
        self._has_answered = False
        if self._transport is None:
            self._give_up(Broken.UNREACHABLE, Broken.UNREACHABLE)  # it ended as soon as it was there
        else:
            self._transport.write(data)

    def abort(self) -> None:
        """Nobody is given it any more, although the transport tells that it has ended only later."""
        self._owner.take_out(self)
        if self._transport is not None:
            self._transport.abort()

    def expire(self, now: float) -> None:
        if self._group:
            if now > self._deadline:
                self._give_up(Broken.TIMEOUT, Broken.TIMEOUT)
        elif now - self._idle_since > IDLE_S:
            self.abort()

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._owner.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._received:
            self._received.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._received)
            self._received.clear()
        try:
            rest = self._read_answers(data)
        except Unreadable as error:
            log.warning("an answer is no HTTP", extra={"address": self._owner.address, "error": str(error)})
            self._give_up(Broken.GARBAGE, Broken.LOST)
            return
        if not self._group:
            self._finish(is_clean=not rest)
        elif self._will_end:
            self._give_up(Broken.LOST, Broken.LOST)
        elif rest:
            self._received.append(rest)
            self._size = len(rest)

    def eof_received(self) -> None:
        """It ends, and is given to nobody from now on."""
        self._owner.take_out(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.forget(self)
        self._transport = None
        if self._received:
            self._give_up(Broken.CUT, Broken.LOST)
        else:
            how = Broken.STALE if self._is_used and not self._has_answered else Broken.LOST
            self._give_up(how, how)

    # Inside.

    def _read_answers(self, data: bytes) -> bytes:
        """Hands out the answers that are whole; what is left of the data. Raises Unreadable."""
        group = self._group
        start = 0
        while group and not self._will_end:
            body = data.find(b"\r\n\r\n", start) + 4
            if body < 4:
                self._needed = 0  # whatever comes may complete the head
                if len(data) - start > LONGEST_HEAD:
                    raise Unreadable("the head is too long")
                break
            head = self._heads[data[start:body]]
            end = body + head.length
            if end > len(data):
                self._needed = end - start
                break
            start = end
            self._has_answered = True
            self._will_end = not head.keeps_alive
            self._hand_out(group.popleft(), head, data[body:end])
        return data[start:]

    def _hand_out(self, member: Member, head: AnswerHead, body: bytes) -> None:
        try:
            member.on_answer(head, body)
        except Exception:  # a bug with one answer must not cost the others theirs
            log.exception("an answer could not be handled", extra={"address": self._owner.address})

    def _finish(self, *, is_clean: bool) -> None:
        if self._transport is None:
            return
        if self._will_end or not is_clean:
            self.abort()
            return
        self._is_used = True
        self._idle_since = self._owner.loop.time()
        self._owner.put_back(self)

    def _give_up(self, first: Broken, others: Broken) -> None:
        """Ends the connection; `first` is what is told to the one whose answer was due, if any."""
        self.abort()
        group, self._group = self._group, deque()
        how = first
        for member in group:
            member.on_broken(how)
            how = others
