"""The runtime operations, from a complete request to an invocation under way.

A request is admitted in this order, and refused in SageMaker's words at the first step that fails: size, signature,
endpoint, members, variant. The route is looked up after the body has come, so once control knows that a withdrawn
route is applied here, no later answer comes from it.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from logging import getLogger
from time import monotonic
from typing import NamedTuple
from urllib.parse import unquote

from clary.domain.faults import Fault, internal, not_supported
from clary.gateway import members
from clary.gateway.answers import RUNTIME, invalid, send_fault, unknown_endpoint
from clary.gateway.balance import Chance
from clary.gateway.chains import ChainInvocation, ChainStream
from clary.gateway.container_fields import field_lines
from clary.gateway.invocation import Invocation
from clary.gateway.members import RARE
from clary.gateway.models import Models
from clary.gateway.models_invocation import ModelInvocation
from clary.gateway.plans import EndpointPlan
from clary.gateway.request_ids import RequestIds
from clary.gateway.routes import RouteTable
from clary.gateway.shadows import Shadows
from clary.gateway.streams import LONGEST_STREAM_S, StreamInvocation
from clary.gateway.ties import NewSession, Tie
from clary.gateway.watching import Sampler
from clary.wire.exchange import BodyError, BodyTooLarge, Exchange
from clary.wire.heads import Head
from clary.wire.identify import check_scope
from clary.wire.sigv4 import Signer, Verifier

log = getLogger(__name__)

_PREFIX = b"/endpoints/"
_KINDS: tuple[tuple[bytes, type[Invocation] | None], ...] = (
    (b"/invocations", Invocation),
    (b"/invocations-response-stream", StreamInvocation),
    (b"/async-invocations", None),
)

_HASHED_ASIDE = 1 << 20  # hashing a body of this size would hold up the loop for a millisecond

_STREAM_ACCEPT = b"x-amzn-sagemaker-accept"

_REMEMBERED = 1024
_LONGEST_REMEMBERED = 256


class Address(NamedTuple):
    """What a request's target says. `kind` is None for an operation that is not served."""

    kind: type[Invocation] | None
    name: str  # the endpoint's, as the caller writes it
    key_name: str


class Runtime:
    """InvokeEndpoint and InvokeEndpointWithResponseStream."""

    def __init__(
        self,
        table: RouteTable,
        verifier: Verifier,
        request_ids: RequestIds,
        models: Models,
        *,
        max_body_bytes: int,
        authorise: Callable[[Signer, Head, bool, str], None] = lambda signer, head, streams, name: None,
        chance: Chance = random.random,
        now: Callable[[], float] = time.time,
        sampler: Sampler | None = None,
    ) -> None:
        """`now` is in seconds since the epoch; `sampler` says which requests are captured."""
        self.loop = asyncio.get_running_loop()
        self.chance = chance
        self.models = models
        self._now = now
        self._sampler = sampler
        self._shadows = Shadows(self.loop, chance, models)
        self._table = table
        self._verifier = verifier
        self._request_ids = request_ids
        self.max_body_bytes = max_body_bytes
        self._authorise = authorise
        self._addresses: dict[bytes, Address] = {}
        self._fields: dict[tuple[bytes | None, bytes | None, bytes | None, int], bytes] = {}

    def takes(self, exchange: Exchange) -> bool:
        """Begins to answer if it is a runtime operation; False when it is somebody else's."""
        head = exchange.head
        target = head.target
        if head.method != b"POST" or not (target in self._addresses or self._address(target)):
            return False
        exchange.collect(self.max_body_bytes, self._begin, self._refuse_body)
        return True

    def current(self, endpoint: EndpointPlan) -> EndpointPlan | None:
        return self._table.find(endpoint.key)

    def _begin(self, exchange: Exchange, body: bytes) -> None:
        received = monotonic()
        if len(body) < _HASHED_ASIDE:
            self._admit(exchange, body, hashlib.sha256(body).hexdigest(), received)
            return
        hashing = self.loop.run_in_executor(None, lambda: hashlib.sha256(body).hexdigest())
        hashing.add_done_callback(lambda done: self._admit(exchange, body, done.result(), received))

    def _admit(self, exchange: Exchange, body: bytes, sha256: str, received: float) -> None:
        request_id = self._request_ids()
        head = exchange.head
        try:
            signer = self._verifier.signer(head, sha256)
            check_scope(RUNTIME, signer)
            address = self._addresses.get(head.target) or self._address(head.target)
            assert address is not None, "it was taken for this"
            kind, name, key_name = address
            if kind is None:
                raise invalid(not_supported("InvokeEndpointAsync").message)
            if not signer.principal.is_root:
                self._authorise(signer, head, kind is StreamInvocation, name)
            account = signer.principal.account
            endpoint = self._table.find((account, signer.region, key_name))
            if endpoint is None:
                raise unknown_endpoint(name, account)
            tie, model, is_chain = None, "", False
            if RARE.isdisjoint(head.headers) and not endpoint.needs_target:
                variant = endpoint.any_variant.choose(self.chance) or members.without_instance(endpoint)
            else:
                is_stream = kind is StreamInvocation
                variant, tie = members.choose(head, endpoint, is_stream, self.chance, self._now())
                model = members.target_model(head, endpoint, variant, is_stream, request_id)
                is_chain = variant.is_chain
            fields = self._container_fields(head, len(body), kind, tie)
            if model:
                fields = b"%bx-amzn-sagemaker-target-model: %b\r\n\r\n" % (
                    fields[:-2],
                    model.encode(),
                )
        except Fault as fault:
            send_fault(exchange, fault, request_id)
            return
        except Exception:  # a bug of ours must not cost the client its answer
            log.exception("an invocation could not be admitted", extra={"request_id": request_id})
            send_fault(exchange, internal(), request_id)
            return
        if model:
            called = ModelInvocation(self, exchange, request_id, received, endpoint, variant, fields, body)
            called.model = model
            self._begin_specially(called, tie, exchange, request_id, endpoint, fields, body, model)
            return
        if is_chain:
            kind = ChainStream if kind is StreamInvocation else ChainInvocation
        invocation = kind(self, exchange, request_id, received, endpoint, variant, fields, body)
        if tie is None and endpoint.is_plain:
            invocation.begin()
        else:
            self._begin_specially(invocation, tie, exchange, request_id, endpoint, fields, body)

    def _begin_specially(
        self,
        invocation: Invocation,
        tie: Tie | None,
        exchange: Exchange,
        request_id: str,
        endpoint: EndpointPlan,
        fields: bytes,
        body: bytes,
        model: str = "",
    ) -> None:
        """Begins a request that is tied to an instance, or captured, or copied: the copies leave after it."""
        watch = None
        if self._sampler is not None and endpoint.route.capture is not None:
            watch = self._sampler(endpoint, exchange.head, body, request_id)
        invocation.heed(tie, watch)
        invocation.begin()
        if endpoint.shadows and not isinstance(tie, NewSession):
            limit_s = LONGEST_STREAM_S if isinstance(invocation, StreamInvocation) else endpoint.timeout_s
            self._shadows.copy(endpoint, fields, body, limit_s, watch, model)

    def _address(self, target: bytes) -> Address | None:
        """None when the target is no runtime operation's."""
        address = self._addresses.get(target)
        if address is None and target.startswith(_PREFIX):
            address = _read_address(target)
            if address is not None and len(target) <= _LONGEST_REMEMBERED:
                if len(self._addresses) >= _REMEMBERED:
                    self._addresses.clear()
                self._addresses[target] = address
        return address

    def _container_fields(self, head: Head, length: int, kind: type[Invocation], tie: Tie | None) -> bytes:
        """The header lines the container gets: of the caller's headers only these."""
        get = head.headers.get
        accept = get(b"accept" if kind is Invocation else _STREAM_ACCEPT)
        wanted = (get(b"content-type"), accept, get(members.CUSTOM_ATTRIBUTES), length)
        fields = self._fields.get(wanted)
        if fields is None:
            fields = field_lines(*wanted)
            if len(fields) <= _LONGEST_REMEMBERED:
                if len(self._fields) >= _REMEMBERED:
                    self._fields.clear()
                self._fields[wanted] = fields
        return fields if tie is None else fields[:-2] + tie.request_line + b"\r\n"

    def _refuse_body(self, exchange: Exchange, error: BodyError) -> None:
        if isinstance(error, BodyTooLarge):
            fault = invalid(f"The request body is longer than {self.max_body_bytes} bytes.", 413)
        else:
            fault = invalid(f"The request body could not be read: {error}.")
        send_fault(exchange, fault, self._request_ids())


def _read_address(target: bytes) -> Address | None:
    for suffix, kind in _KINDS:
        if target.endswith(suffix):
            raw = target[len(_PREFIX) : -len(suffix)].decode("latin-1")
            name = unquote(raw) if "%" in raw else raw
            return Address(kind, name, name.lower())
    return None
