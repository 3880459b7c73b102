"""The runtime operations, from a complete request to an invocation under way.

A request is admitted in this order, and refused in SageMaker's words at the first step that fails: size, signature,
endpoint, members, variant. The route is looked up after the body has come, so once control knows that a withdrawn
route is applied here, no later answer comes from it.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from logging import getLogger
from time import perf_counter
from urllib.parse import unquote

from clary.domain.faults import Fault, internal, not_supported
from clary.gateway.answers import (
    RUNTIME,
    invalid,
    no_components,
    not_multi_container,
    not_multi_model,
    send_fault,
    unknown_endpoint,
    unknown_variant,
)
from clary.gateway.balance import Chance
from clary.gateway.invocation import Invocation
from clary.gateway.request_ids import RequestIds
from clary.gateway.routes import EndpointPlan, RouteTable, VariantPlan
from clary.gateway.streams import StreamInvocation
from clary.wire.exchange import BodyError, BodyTooLarge, Exchange
from clary.wire.heads import Head
from clary.wire.identify import check_scope
from clary.wire.sigv4 import Identity, Verifier

log = getLogger(__name__)

_PREFIX = b"/endpoints/"
_INVOKE = b"/invocations"
_STREAM = b"/invocations-response-stream"
_ASYNC = b"/async-invocations"

_HASHED_ASIDE = 1 << 20  # hashing a body of this size would hold up the loop for a millisecond

_TARGET_VARIANT = b"x-amzn-sagemaker-target-variant"
_TARGET_MODEL = b"x-amzn-sagemaker-target-model"
_TARGET_CONTAINER = b"x-amzn-sagemaker-target-container-hostname"
_COMPONENT = b"x-amzn-sagemaker-inference-component"
_SESSION = b"x-amzn-sagemaker-session-id"
_EXPLANATIONS = b"x-amzn-sagemaker-enable-explanations"
_INFERENCE_ID = b"x-amzn-sagemaker-inference-id"
_CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_STREAM_ACCEPT = b"x-amzn-sagemaker-accept"

_RARE = frozenset(
    (
        _TARGET_VARIANT,
        _TARGET_MODEL,
        _TARGET_CONTAINER,
        _COMPONENT,
        _SESSION,
        _EXPLANATIONS,
        _INFERENCE_ID,
        _CUSTOM_ATTRIBUTES,
    )
)

Kind = type[Invocation]


class Runtime:
    """InvokeEndpoint and InvokeEndpointWithResponseStream."""

    def __init__(
        self,
        table: RouteTable,
        verifier: Verifier,
        request_ids: RequestIds,
        *,
        max_body_bytes: int,
        authorise: Callable[[Identity, Head, bool, str], None] = lambda identity, head, streams, name: None,
        chance: Chance = random.random,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.chance = chance
        self._table = table
        self._verifier = verifier
        self._request_ids = request_ids
        self._max_body_bytes = max_body_bytes
        self._authorise = authorise

    def takes(self, exchange: Exchange) -> bool:
        """Begins to answer if it is a runtime operation; False when it is somebody else's."""
        head = exchange.head
        target = head.target
        if not target.startswith(_PREFIX) or head.method != b"POST":
            return False
        if target.endswith(_INVOKE):
            exchange.collect(self._max_body_bytes, self._invoke, self._refuse_body)
        elif target.endswith(_STREAM):
            exchange.collect(self._max_body_bytes, self._stream, self._refuse_body)
        elif target.endswith(_ASYNC):
            exchange.collect(self._max_body_bytes, self._invoke_async, self._refuse_body)
        else:
            return False
        return True

    def current(self, endpoint: EndpointPlan) -> EndpointPlan | None:
        return self._table.find(endpoint.key)

    def _invoke(self, exchange: Exchange, body: bytes) -> None:
        self._hash(body, lambda sha256: self._begin(exchange, body, sha256, _INVOKE, Invocation))

    def _stream(self, exchange: Exchange, body: bytes) -> None:
        self._hash(body, lambda sha256: self._begin(exchange, body, sha256, _STREAM, StreamInvocation))

    def _hash(self, body: bytes, then: Callable[[str], None]) -> None:
        if len(body) < _HASHED_ASIDE:
            then(hashlib.sha256(body).hexdigest())
            return
        hashing = self.loop.run_in_executor(None, lambda: hashlib.sha256(body).hexdigest())
        hashing.add_done_callback(lambda done: then(done.result()))

    def _invoke_async(self, exchange: Exchange, body: bytes) -> None:
        request_id = self._request_ids()
        try:
            self._verifier.verify(exchange.head, hashlib.sha256(body).hexdigest())
            raise invalid(not_supported("InvokeEndpointAsync").message)
        except Fault as fault:
            send_fault(exchange, fault, request_id)

    def _begin(self, exchange: Exchange, body: bytes, sha256: str, suffix: bytes, kind: Kind) -> None:
        received = perf_counter()
        request_id = self._request_ids()
        head = exchange.head
        try:
            identity = self._verifier.verify(head, sha256)
            check_scope(RUNTIME, identity)
            name = _endpoint_name(head.target, suffix)
            if not identity.principal.is_root:
                self._authorise(identity, head, kind is StreamInvocation, name)
            account = identity.principal.account
            endpoint = self._table.find((account, identity.region, name.lower()))
            if endpoint is None:
                raise unknown_endpoint(name, account)
            variant = self._choose_variant(head, endpoint)
            fields = _container_fields(head, len(body), streams=kind is StreamInvocation)
        except Fault as fault:
            send_fault(exchange, fault, request_id)
            return
        except Exception:  # a bug of ours must not cost the client its answer
            log.exception("an invocation could not be admitted", extra={"request_id": request_id})
            send_fault(exchange, internal(), request_id)
            return
        kind(self, exchange, request_id, received, endpoint, variant, fields, body).begin()

    def _choose_variant(self, head: Head, endpoint: EndpointPlan) -> VariantPlan:
        if not _RARE.isdisjoint(head.headers):
            _check_members(head, endpoint)
            named = head.headers.get(_TARGET_VARIANT)
            if named is not None:
                found = endpoint.variants.get(named.decode("latin-1"))
                if found is None:
                    raise unknown_variant(endpoint, named.decode("latin-1"))
                return found
        variant = endpoint.any_variant.choose(self.chance)
        if variant is not None:
            return variant
        if endpoint.weighs_nothing:
            raise invalid(
                f"Endpoint {endpoint.name} has no production variant with a weight above zero; name one as the "
                "target variant."
            )
        return next(iter(endpoint.variants.values()))  # none has an instance: its own refusal says so

    def _refuse_body(self, exchange: Exchange, error: BodyError) -> None:
        if isinstance(error, BodyTooLarge):
            fault = invalid(f"The request body is longer than {self._max_body_bytes} bytes.", 413)
        else:
            fault = invalid(f"The request body could not be read: {error}.")
        send_fault(exchange, fault, self._request_ids())


def _endpoint_name(target: bytes, suffix: bytes) -> str:
    raw = target[len(_PREFIX) : -len(suffix)].decode("latin-1")
    return unquote(raw) if "%" in raw else raw


def _check_members(head: Head, endpoint: EndpointPlan) -> None:
    headers = head.headers
    if _TARGET_MODEL in headers:
        raise not_multi_model(endpoint)
    if _TARGET_CONTAINER in headers:
        raise not_multi_container(endpoint)
    if _COMPONENT in headers:
        raise no_components(endpoint)
    for name, member in ((_SESSION, "SessionId"), (_EXPLANATIONS, "EnableExplanations")):
        if name in headers:
            raise invalid(not_supported(member).message)
    _check_length(head, _CUSTOM_ATTRIBUTES, "customAttributes", 1024)
    _check_length(head, _INFERENCE_ID, "inferenceId", 64)


def _check_length(head: Head, name: bytes, member: str, longest: int) -> None:
    value = head.text(name)
    if len(value) > longest:
        raise invalid(
            f"1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have "
            f"length less than or equal to {longest}"
        )


def _container_fields(head: Head, length: int, *, streams: bool) -> bytes:
    """The header lines the container gets: of the caller's headers only these."""
    headers = head.headers
    fields = b"content-length: %d\r\n" % length
    content_type = headers.get(b"content-type")
    if content_type is not None:
        fields += b"content-type: %b\r\n" % content_type
    accept = headers.get(_STREAM_ACCEPT if streams else b"accept")
    if accept is not None:
        fields += b"accept: %b\r\n" % accept
    attributes = headers.get(_CUSTOM_ATTRIBUTES)
    if attributes is not None:
        fields += b"x-amzn-sagemaker-custom-attributes: %b\r\n" % attributes
    return fields + b"\r\n"
