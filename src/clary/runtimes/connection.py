"""One client's connection to the model server: HTTP/1.1 with keep-alive, pipelining, chunks and limits.

One group of requests at a time: the usual invocations that lie there one after another are predicted together and
answered in one piece, anything else is a group of its own. What a client sends ahead waits in the buffer until its
turn, so answers keep the order of the requests. Whole requests with heads seen before are taken without copying
them through the buffer.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import cast

from clary.runtimes.chunks import ChunkDecoder, ChunksTooLong, MalformedChunk
from clary.runtimes.contract import Dispatcher, InvocationRequest, InvocationResponse
from clary.runtimes.heads import (
    CONTINUE,
    LONGEST_HEAD,
    HeadCache,
    MalformedHead,
    RequestHead,
    check_beginning,
    encode_response,
)

MOST_READ_AHEAD = 256 << 10
MOST_TOGETHER = 64
_PLAIN = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)


class Service:
    """What all connections share: the dispatcher, the limits, and the list of who is connected."""

    def __init__(
        self, dispatcher: Dispatcher, max_payload_bytes: int, execution_parameters: dict[str, object]
    ) -> None:
        self.dispatcher = dispatcher
        self.max_payload_bytes = max_payload_bytes
        self.execution_parameters = json.dumps(execution_parameters).encode()
        self.heads = HeadCache()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.on_last_gone: Callable[[], None] | None = None

    def connect(self) -> "Connection":
        """The protocol of a connection that comes in."""
        return Connection(self)

    def stop(self, on_last_gone: Callable[[], None]) -> None:
        """Closes idle connections now and the others after their answer, then calls `on_last_gone`."""
        self.stopping = True
        self.on_last_gone = on_last_gone
        for connection in list(self.connections):
            connection.close_when_idle()
        if not self.connections:
            on_last_gone()


class Connection(asyncio.Protocol):
    def __init__(self, service: Service) -> None:
        self._service = service
        self._plain_heads = service.heads.plain
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._head: RequestHead | None = None  # of the request whose body is being read
        self._chunks: ChunkDecoder | None = None
        self._answering = False
        self._writing_paused = False
        self._held = False  # by one of these two: nothing is read from the buffer
        self._keep_alive = True
        self._ended = False
        self._reading_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        service = self._service
        service.connections.discard(self)
        if service.on_last_gone is not None and not service.connections:
            service.on_last_gone()

    def data_received(self, data: bytes) -> None:
        if not (self._held or self._unread or self._head):
            taken = self._take_usual(data)
            if taken == len(data):
                return
            data = data[taken:]
        self._unread += data
        self._read_on()
        if self._held and len(self._unread) > MOST_READ_AHEAD:
            self._pause_reading()

    def eof_received(self) -> bool:
        """A client that has said all it had to may still wait for its answers."""
        self._ended = True
        self._read_on()
        return self._held

    def pause_writing(self) -> None:
        """The client does not take its answers: nothing more is read until it does."""
        self._writing_paused = self._held = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._held = self._answering
        self._go_on()

    def close_when_idle(self) -> None:
        if self._transport is not None and not self._answering and self._head is None and not self._unread:
            self._transport.close()

    def _read_on(self) -> None:
        """Takes as many whole requests from the buffer as may be answered now."""
        try:
            while self._unread and not self._held and self._transport is not None:
                if self._head is None:
                    taken = self._take_usual(self._unread)
                    del self._unread[:taken]
                    if taken:
                        continue
                    if not self._read_head():
                        return
                body = self._read_body()
                if body is None:
                    return
                head, self._head, self._chunks = self._head, None, None
                assert head is not None
                self._take(head, body)
        except (MalformedHead, MalformedChunk) as error:
            self._refuse(400, str(error))
        except ChunksTooLong:
            self._refuse_too_large()

    def _read_head(self) -> bool:
        """Whether a request's body comes next. Its framing is known then."""
        if self._unread.startswith(b"\r\n"):  # some clients end a body with one too many
            del self._unread[:2]
        end = self._unread.find(b"\r\n\r\n", 0, LONGEST_HEAD) + 4
        if end < 4:
            self._check_partial_head()
            return False
        head = self._service.heads.parse(bytes(self._unread[:end]))
        del self._unread[:end]
        if head.length > self._service.max_payload_bytes:
            self._refuse_too_large()
            return False
        self._head = head
        self._chunks = ChunkDecoder(self._service.max_payload_bytes) if head.chunked else None
        waits = head.chunked or head.length > 0
        if head.expects_continue and waits and not self._unread and self._transport is not None:
            self._transport.write(CONTINUE)
        return True

    def _check_partial_head(self) -> None:
        if len(self._unread) >= LONGEST_HEAD:
            self._refuse(431, f"the head of the request is longer than {LONGEST_HEAD} bytes")
        elif self._unread:
            check_beginning(bytes(self._unread))

    def _read_body(self) -> bytes | None:
        if self._chunks is not None:
            return self._chunks.take(self._unread)
        assert self._head is not None
        length = self._head.length
        if len(self._unread) < length:
            return None
        body = bytes(self._unread[:length])
        del self._unread[:length]
        return body

    def _take_usual(self, data: bytes | bytearray) -> int:
        """Takes up the usual invocations that `data` begins with; returns where they end."""
        limit = self._service.max_payload_bytes
        heads = self._plain_heads
        requests: list[InvocationRequest] = []
        start = 0
        while len(requests) < MOST_TOGETHER:
            body = data.find(b"\r\n\r\n", start) + 4
            known = heads.get(bytes(data[start:body]))
            if known is None:  # not seen before, unusual or incomplete
                break
            invocation, length = known
            end = body + length
            if length > limit or end > len(data):
                break
            requests.append(InvocationRequest(invocation, bytes(data[body:end])))
            start = end
        if requests:
            self._submit(requests)
        return start

    def _take(self, head: RequestHead, body: bytes) -> None:
        self._keep_alive = head.keep_alive
        if head.path == "/invocations":
            if head.method == "POST":
                self._submit([InvocationRequest(head.invocation, body)])
            else:
                self._answer([_refusal(405, "Method Not Allowed: invocations are sent by POST")])
        elif head.path in ("/ping", "/execution-parameters"):
            self._answer([self._inform(head)])
        else:
            self._answer([_refusal(404, f"Not Found: {head.path}")])

    def _submit(self, requests: Sequence[InvocationRequest]) -> None:
        self._answering = self._held = True
        self._service.dispatcher.submit(requests, self._answer)

    def _inform(self, head: RequestHead) -> InvocationResponse:
        if head.method not in ("GET", "HEAD"):
            return _refusal(405, f"Method Not Allowed: {head.path} is asked for by GET")
        if head.path == "/ping" or head.method == "HEAD":
            return InvocationResponse(200, "", b"")
        return InvocationResponse(200, "application/json", self._service.execution_parameters)

    def _answer(self, responses: Sequence[InvocationResponse]) -> None:
        self._answering = False
        self._held = self._writing_paused
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        keep_alive = self._keep_alive and not self._service.stopping
        if len(responses) == 1:
            transport.write(encode_response(responses[0], keep_alive=keep_alive))
        else:
            *others, last = responses
            answers = [encode_response(response, keep_alive=True) for response in others]
            transport.write(b"".join([*answers, encode_response(last, keep_alive=keep_alive)]))
        for response in responses:
            if response.status >= 400:
                log.warning("request refused: %d %s", response.status, _one_line(response.body))
        if not keep_alive:
            transport.close()
        elif self._unread or self._ended:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """After an answer, or when the client takes answers again: what it sent meanwhile."""
        self._read_on()
        if self._transport is None:
            return
        if self._ended and not self._held:
            self._transport.close()
        elif self._reading_paused and not self._writing_paused and len(self._unread) <= MOST_READ_AHEAD:
            self._reading_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _refuse_too_large(self) -> None:
        limit = self._service.max_payload_bytes
        self._refuse(413, f"Request Entity Too Large: at most {limit} bytes are accepted")

    def _refuse(self, status: int, text: str) -> None:
        """For requests whose end is unknown: the connection cannot go on."""
        self._keep_alive = False
        self._unread.clear()
        self._answer([_refusal(status, text)])


def _refusal(status: int, text: str) -> InvocationResponse:
    return InvocationResponse(status, _PLAIN, text.encode())


def _one_line(body: bytes) -> str:
    return " ".join(body[:500].decode("utf-8", "replace").split())
