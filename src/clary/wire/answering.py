"""A request's whole life, without a transport: identify, parse, validate, authorise, call, serialize.

    plan(head, form, identity)              what is asked for; raises Fault
    answer(plan, request, identity, id)     does it, on the calling thread; every outcome is a response

A fault is answered in the protocol the request came in. Any other exception is a bug: it is logged with its
traceback and answered as InternalFailure, with the request id that the log line bears.
"""

import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from clary.domain.clock import Clock
from clary.domain.faults import Fault, internal
from clary.wire import protocols
from clary.wire.chunked import SigningKeys, VerifyingBody, verifying_body, whole
from clary.wire.faults import request_id_headers, serialize_fault, unknown_operation, unsupported_operation
from clary.wire.heads import Head
from clary.wire.identify import ADMIN_PATH, Identified, check_scope, identify
from clary.wire.messages import Request, Response
from clary.wire.operations import Answer, Call, Handler, Held, OperationTable, Readable
from clary.wire.sigv4 import Identity

log = logging.getLogger(__name__)


class Service(Protocol):
    """One service model, as `clary.wire.models.ServiceModel` gives it."""

    @property
    def protocol_names(self) -> tuple[str, ...]: ...

    def has_operation(self, name: str) -> bool: ...

    def operation(self, name: str) -> Any: ...

    def match(self, method: str, path: str, query: str, headers: Any) -> str | None: ...

    def absence(self, operation: str) -> str | None: ...


class Models(Protocol):
    def service(self, name: str) -> Service: ...


class Validate(Protocol):
    def __call__(self, operation: Any, params: Mapping[str, Any]) -> None: ...


Authorize = Callable[[Call, Mapping[str, Any]], None]
"""Raises the Fault that says the caller may not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request asks for. `model` is None for the admin operations, which no service model describes."""

    identified: Identified
    operation: str
    handler: Handler
    model: Any = None
    streams: bool = False  # the operation's input is a streaming body


@dataclass(frozen=True, slots=True)
class _Extras:
    """What a handler is told beside the members."""

    body: bytes = b""
    trailers: Mapping[str, str] = field(default_factory=dict)
    may_hold: bool = False


# Method and path below /_clary/ → operation. A last `{Name}` is the parameter Name.
_ADMIN_ROUTES = (
    ("GET", "status", "GetStatus"),
    ("GET", "health", "GetHealth"),
    ("GET", "why/{Name}", "Explain"),
    ("GET", "deployments/{Name}", "ListDeployments"),
    ("GET", "models/{Name}", "ListEndpointModels"),
    ("POST", "models/{Name}", "PinEndpointModels"),
    ("POST", "reset", "Reset"),
)


class Answering:
    def __init__(
        self,
        models: Models,
        table: OperationTable,
        *,
        validate: Validate,
        keys: SigningKeys,
        clock: Clock,
        max_body_bytes: int,
        authorize: Authorize = lambda call, params: None,
    ) -> None:
        self._authorize = authorize
        self._models = models
        self._table = table
        self._validate = validate
        self._keys = keys
        self._clock = clock
        self._max_body_bytes = max_body_bytes

    def plan(self, head: Head, form: bytes, identity: Identity) -> Plan:
        """What the request asks for. Raises Fault: unknown, not supported, signed for another service."""
        if form and head.headers.get(b"content-encoding") == b"gzip":
            form = _inflated(form, self._max_body_bytes)
        identified = identify(head, form)
        check_scope(identified, identity)
        if identified.service == "clary":
            return self._admin_plan(identified, head)
        if not identified.service:
            raise unknown_operation(identified)
        service = self._models.service(identified.service)
        if identified.protocol not in service.protocol_names:
            raise unknown_operation(identified)
        operation = identified.operation
        if operation is None and identified.protocol.startswith("rest-"):
            operation = service.match(
                head.method.decode("latin-1"),
                head.path.decode("latin-1"),
                head.query.decode("latin-1"),
                [name.decode("latin-1") for name in head.headers],
            )
        if operation is None or not service.has_operation(operation):
            raise unknown_operation(identified)
        return self.plan_of(identified, operation)

    def plan_of(self, identified: Identified, operation: str) -> Plan:
        """The plan for an operation that the service has. Raises Fault when it is not supported."""
        service = self._models.service(identified.service)
        handler = self._table.find(identified.service, operation)
        if handler is None:
            raise unsupported_operation(identified, operation, service.absence(operation))
        model = service.operation(operation)
        return Plan(identified, operation, handler, model, model.has_streaming_input)

    def answer(
        self,
        plan: Plan,
        request: Request,
        identity: Identity,
        request_id: str,
        body: Readable | None = None,
        *,
        may_hold: bool = False,
    ) -> Response:
        """Does what is asked. `body` is the request's streaming body; otherwise `request.body` is whole.

        Raises Held, where `may_hold` lets it, and nothing else.
        """
        try:
            extras = _Extras(may_hold=may_hold)
            if plan.streams:
                reader = body or self._verifying(request, identity)
                request = Request(request.method, request.path, request.query, request.headers, reader)
            else:
                verifying = self._verifying(request, identity)
                raw = verifying.read_all()
                extras = _Extras(raw, verifying.trailers, may_hold)
                request = _with_body(request, self._decompressed(plan, request, raw))
            return self._call(plan, request, identity, request_id, extras)
        except Fault as fault:
            return self.refuse(plan.identified, fault, request, request_id)
        except Held:
            raise
        except Exception:
            log.exception(
                "operation failed",
                extra={
                    "request_id": request_id,
                    "service": plan.identified.service,
                    "operation": plan.operation,
                },
            )
            return self.refuse(plan.identified, internal(), request, request_id)

    def refuse(self, identified: Identified, fault: Fault, request: Request, request_id: str) -> Response:
        return serialize_fault(identified, fault, request_id, method=request.method, resource=request.path)

    def _verifying(self, request: Request, identity: Identity) -> VerifyingBody:
        return verifying_body(whole(_bytes(request)), identity, request.headers, self._keys)

    def _call(
        self, plan: Plan, request: Request, identity: Identity, request_id: str, extras: "_Extras"
    ) -> Response:
        if plan.model is None:
            params = _admin_params(plan, request)
        else:
            protocol = protocols.load(plan.identified.protocol)
            params = protocol.parse(plan.model, request)
            self._validate(plan.model, params)
        call = Call(
            service=plan.identified.service,
            operation=plan.operation,
            account=identity.principal.account,
            region=identity.region,
            principal=identity.principal,
            request_id=request_id,
            received_at=self._clock.now(),
            headers=request.headers,
            body=extras.body,
            trailers=extras.trailers,
            may_hold=extras.may_hold,
        )
        self._authorize(call, params)
        result = plan.handler(call, params)
        answer = result if isinstance(result, Answer) else Answer(result or {})
        if plan.model is None:
            return _admin_response(answer, request_id)
        return protocol.serialize(
            plan.model,
            answer.members,
            status=answer.status,
            headers=tuple(answer.headers.items()),
            request_id=request_id,
        )

    def _admin_plan(self, identified: Identified, head: Head) -> Plan:
        method, path = head.method.decode("latin-1"), head.path[len(ADMIN_PATH) :].decode("latin-1")
        for verb, pattern, operation in _ADMIN_ROUTES:
            prefix, brace, _ = pattern.partition("{")
            matches = path.startswith(prefix) and len(path) > len(prefix) if brace else path == pattern
            handler = self._table.find("clary", operation)
            if verb == method and matches and handler is not None:
                return Plan(identified, operation, handler)
        raise unknown_operation(identified)

    def _decompressed(self, plan: Plan, request: Request, body: bytes) -> bytes:
        """Large RPC bodies come compressed; S3's content encodings belong to its objects."""
        if plan.identified.service == "s3" or request.headers.get("content-encoding") != "gzip":
            return body
        return _inflated(body, self._max_body_bytes)


def _inflated(body: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, most)
    except zlib.error:
        raise Fault("SerializationException", "The body is not gzip, which its header says it is.") from None
    if inflater.unconsumed_tail:
        raise Fault("RequestEntityTooLargeException", "The body is too large when decompressed.", 413)
    if not inflater.eof:
        raise Fault("SerializationException", "The compressed body is cut off.")
    return inflated


def _bytes(request: Request) -> bytes:
    if not isinstance(request.body, bytes):
        raise TypeError("a streaming body is handed in beside the request")
    return request.body


def _with_body(request: Request, body: bytes) -> Request:
    return Request(request.method, request.path, request.query, request.headers, body)


def _admin_params(plan: Plan, request: Request) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if request.body:
        try:
            content = msgspec.json.decode(_bytes(request))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Fault("SerializationException", f"The body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise Fault("SerializationException", "The body must be a JSON object.")
        params.update(content)
    for _, pattern, operation in _ADMIN_ROUTES:
        prefix, brace, name = pattern.partition("{")
        if brace and operation == plan.operation:
            params[name.rstrip("}")] = unquote(request.path[len(ADMIN_PATH) + len(prefix) :])
    return params


def _admin_response(answer: Answer, request_id: str) -> Response:
    headers = (("content-type", "application/json"), *request_id_headers("clary", request_id))
    body = msgspec.json.encode(answer.members)
    return Response(answer.status or 200, (*headers, *answer.headers.items()), body)
