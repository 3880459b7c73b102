"""Control's wire server: `Answering` behind HTTP on the Unix socket that the gateways forward to.

The loop only moves bytes. Handlers run on two bounded pools, one for ordinary requests and one for streaming
uploads, so that slow uploads cannot starve the API; when a pool's queue is full the request is refused at once
(ThrottlingException, SlowDown) instead of waiting without end.

The socket is open to this user only and the gateways verify signatures, so `x-clary-identity` is believed.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from clary.domain.clock import Clock
from clary.domain.faults import Fault, internal, throttled
from clary.wire.answering import Answering, Authorize, Models, Plan, Validate
from clary.wire.chunked import BodyPipe, broken_body, verifying_body, whole
from clary.wire.exchange import BodyError, BodyTooLarge, ConnectionLost, Exchange
from clary.wire.faults import http_refusal
from clary.wire.heads import Head, encode_fields
from clary.wire.holding import Holding
from clary.wire.hosts import path_style
from clary.wire.http import HttpServer, Limits
from clary.wire.identify import identify, is_form, is_post_form
from clary.wire.messages import Request, Response
from clary.wire.operations import FileBody, OperationTable
from clary.wire.post_forms import FormKeys, PostForms
from clary.wire.sigv4 import Identity

_T = TypeVar("_T")

_FILE_PART = 1 << 20
_SMALL_UPLOAD = 256 << 10
_GIVES_WAY_BY = 5


@dataclass(frozen=True, slots=True)
class Threads:
    """How many requests run at once, and how many more may wait."""

    api: int = 16
    api_queue: int = 512
    uploads: int = 32
    uploads_queue: int = 256


class WireServer:
    """Answers requests whose signature a gateway has verified."""

    def __init__(
        self,
        models: Models,
        table: OperationTable,
        *,
        validate: Validate,
        keys: FormKeys,
        clock: Clock,
        new_request_id: Callable[[], str],
        max_api_bytes: int = 16 << 20,
        hold_s: float = 0.0,
        s3_base_domain: str = "",
        threads: Threads | None = None,
        authorize: Authorize = lambda call, params: None,
    ) -> None:
        threads = threads or Threads()
        self._models = models
        self._services = {service for service, _ in table.implemented()} - {"clary"}
        self._answering = Answering(
            models,
            table,
            validate=validate,
            keys=keys,
            clock=clock,
            max_body_bytes=max_api_bytes,
            authorize=authorize,
        )
        self._forms = PostForms(self._answering, keys, clock)
        self._base_domain = s3_base_domain
        self._keys = keys
        self._new_request_id = new_request_id
        self._max_api_bytes = max_api_bytes
        self._holding = Holding(hold_s)
        self._api = _Pool("api", threads.api, threads.api_queue)
        self._uploads = _Pool("upload", threads.uploads, threads.uploads_queue, gives_way=True)
        self._files = _Pool("file", threads.api, threads.api_queue + threads.uploads_queue)

    def answer(self, request: Request, identity: Identity, request_id: str) -> Response:
        """One request, whole, on the calling thread: what tests and in-process callers use."""
        head = _head(request)
        form = request.body if isinstance(request.body, bytes) else b""
        if identity.service == "s3":
            head = path_style(head, self._base_domain)
            request = replace(_request(head), body=request.body)
        try:
            plan = self._answering.plan(head, form, identity)
        except Fault as fault:
            return self._answering.refuse(identify(head, form), fault, request, request_id)
        return self._answering.answer(plan, request, identity, request_id)

    def answer_form(self, request: Request, request_id: str) -> Response:
        """An upload by form, whole: nobody has verified it yet."""
        assert isinstance(request.body, bytes), "a form that is here already"
        bare = _request(path_style(_head(request), self._base_domain))
        return self._forms.answer(bare, whole(request.body), request_id)

    def warm(self) -> None:
        """Loads the service models of everything that is served, so that no request has to wait for one."""
        for service in sorted(self._services):
            self._models.service(service)

    async def serve(self, socket_path: Path, *, limits: Limits | None = None) -> HttpServer:
        """Listens on the socket; returns when it does. The caller closes what it gets, then this."""
        await asyncio.get_running_loop().run_in_executor(None, self.warm)
        server = HttpServer(self.handle, limits=limits, refusal=http_refusal)
        await server.listen_unix(socket_path)
        return server

    @property
    def uploads_taken(self) -> int:
        """How many uploads run or wait."""
        return self._uploads.taken

    @property
    def held(self) -> int:
        """How many requests wait for an answer that is about to change."""
        return self._holding.count

    def stop_holding(self) -> None:
        """Answers what is held, as things stand. On the loop's thread."""
        self._holding.release()

    def close(self) -> None:
        for pool in (self._api, self._uploads, self._files):
            pool.close()

    async def handle(self, exchange: Exchange) -> None:
        """One exchange: the handler of the HTTP server."""
        head = exchange.head
        request_id = head.text(b"x-clary-request-id") or self._new_request_id()
        request = _request(head)
        form = b""
        try:
            if is_post_form(head):
                await self._answer_form(exchange, request_id)
                return
            identity = _identity(head)
            if identity.service == "s3":
                head = path_style(head, self._base_domain)
                request = _request(head)
            if is_form(head):
                form = await exchange.read_body(self._max_api_bytes)
            plan = self._answering.plan(head, form, identity)
            response = await self._answer(exchange, plan, request, form, identity, request_id)
        except Fault as fault:
            response = self._answering.refuse(identify(head, form), fault, request, request_id)
        except ConnectionLost:
            return
        except BodyError as error:
            response = self._answering.refuse(identify(head, form), _body_fault(error), request, request_id)
        try:
            await self._send(exchange, response)
        except _Vanished:
            if exchange.is_started:
                raise
            again = Fault("ServiceUnavailable", "What was to be read changed meanwhile; try again.", 503)
            await self._send(
                exchange, self._answering.refuse(identify(head, form), again, request, request_id)
            )

    async def _answer(
        self,
        exchange: Exchange,
        plan: Plan,
        request: Request,
        form: bytes,
        identity: Identity,
        request_id: str,
    ) -> Response:
        if plan.streams and not _is_small(exchange.head):
            return await self._answer_upload(exchange, plan, request, identity, request_id)
        body = form or await exchange.read_body(self._max_api_bytes)
        whole = Request(request.method, request.path, request.query, request.headers, body)

        def ask(may_hold: bool) -> "asyncio.Future[Response]":
            return self._api.run(
                lambda: self._answering.answer(plan, whole, identity, request_id, may_hold=may_hold)
            )

        return await self._holding.answer(exchange, ask)

    async def _answer_form(self, exchange: Exchange, request_id: str) -> None:
        request = _request(path_style(exchange.head, self._base_domain))
        await self._send(
            exchange,
            await self._streamed(exchange, lambda pipe: self._forms.answer(request, pipe, request_id)),
        )

    async def _answer_upload(
        self, exchange: Exchange, plan: Plan, request: Request, identity: Identity, request_id: str
    ) -> Response:
        def answer(pipe: BodyPipe) -> Response:
            body = verifying_body(pipe, identity, request.headers, self._keys)
            return self._answering.answer(plan, request, identity, request_id, body)

        return await self._streamed(exchange, answer)

    async def _streamed(self, exchange: Exchange, answer: Callable[[BodyPipe], Response]) -> Response:
        """Runs `answer` on a thread for uploads while the body comes."""
        loop = asyncio.get_running_loop()
        pipe = BodyPipe(on_room=lambda: _soon(loop, exchange.resume))

        def on_data(data: bytes) -> None:
            if not pipe.put(data):
                exchange.pause()

        answered = self._uploads.run(lambda: answer(pipe))
        exchange.stream(on_data, pipe.end, lambda error: pipe.end(broken_body(str(error))))
        try:
            return await answered
        finally:
            pipe.close()

    async def _send(self, exchange: Exchange, response: Response) -> None:
        length = next((int(v) for n, v in response.headers if n.lower() == "content-length"), None)
        fields = encode_fields((n, v) for n, v in response.headers if n.lower() != "content-length")
        body = response.body
        if isinstance(body, bytes):
            is_head = exchange.head.method == b"HEAD"
            exchange.respond(response.status, fields, body, length=length if is_head else None)
        elif isinstance(body, FileBody):
            await self._send_file(exchange, response.status, fields, body)
        else:
            await self._send_parts(exchange, response.status, fields, body, length)

    async def _send_file(self, exchange: Exchange, status: int, fields: bytes, body: FileBody) -> None:
        try:
            descriptor = await self._files.run(lambda: os.open(body.path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise _Vanished(body.path) from None
        try:
            exchange.start(status, fields, length=body.length)
            offset, end = body.offset, body.offset + body.length
            while offset < end:
                size = min(_FILE_PART, end - offset)
                data = await self._files.run(lambda at=offset, size=size: os.pread(descriptor, size, at))  # type: ignore[misc]
                if not data:
                    raise _Vanished(body.path)
                await exchange.write(data)
                offset += len(data)
            exchange.end()
        finally:
            os.close(descriptor)

    async def _send_parts(
        self, exchange: Exchange, status: int, fields: bytes, parts: Iterator[bytes], length: int | None
    ) -> None:
        exchange.start(status, fields, length=length)
        while (part := await self._files.run(lambda: next(parts, None))) is not None:
            await exchange.write(part)
        exchange.end()


class _Vanished(RuntimeError):
    """A file that an answer was to be read from is gone or shorter than it was."""


class _Pool:
    """Threads with a queue that has an end. Those that give way leave the processor to the others first."""

    def __init__(self, name: str, threads: int, queue: int, *, gives_way: bool = False) -> None:
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix=f"wire-{name}", initializer=_give_way if gives_way else None
        )
        self._limit = threads + queue
        self.taken = 0
        self._lock = threading.Lock()

    def run(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Raises Fault when there is no room."""
        with self._lock:
            if self.taken >= self._limit:
                raise throttled()
            self.taken += 1
        return asyncio.get_running_loop().run_in_executor(self._executor, self._counted, work)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _counted(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        finally:
            with self._lock:
                self.taken -= 1


def _give_way() -> None:
    """Hashing a gigabyte must not keep the loop and the API waiting. On Linux this counts for the calling thread."""
    os.nice(_GIVES_WAY_BY)


def _identity(head: Head) -> Identity:
    try:
        return Identity.decode(head.headers[b"x-clary-identity"])
    except (KeyError, msgspec.MsgspecError) as error:
        raise internal("The request came to the server without having been verified.") from error


def _is_small(head: Head) -> bool:
    length = head.headers.get(b"content-length", b"0")
    return b"transfer-encoding" not in head.headers and int(length) <= _SMALL_UPLOAD


def _body_fault(error: BodyError) -> Fault:
    if isinstance(error, BodyTooLarge):
        return Fault("RequestEntityTooLargeException", str(error), 413)
    return Fault("SerializationException", str(error), error.status)


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the server has stopped, perhaps just now
        loop.call_soon_threadsafe(callback)


def _request(head: Head) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers.items()}
    return Request(
        head.method.decode("latin-1"), head.path.decode("latin-1"), head.query.decode("latin-1"), headers
    )


def _head(request: Request) -> Head:
    headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in request.headers.items()}
    return Head(request.method.encode("latin-1"), request.target.encode("latin-1"), headers)
