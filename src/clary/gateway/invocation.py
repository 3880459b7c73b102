"""One InvokeEndpoint under way: sent to a target, its answer passed on or turned into SageMaker's error.

All callbacks, no task. A small answer leaves in one write; a large one is passed on as it comes, the container read
only as fast as the client reads. A small request to our own model server goes with others (`pipeline`) at first;
whatever is tried again goes on a connection of its own.

Trying again, only while no byte of an answer has come:
  - no connection to the target, so it has seen nothing: any other target, whoever's code it runs;
  - a connection that had been idle ended: once on a new connection to the same target, which had most likely just
    closed it; when that one cannot be had, the target died and may have seen the request on the first;
  - a connection broke: once elsewhere for a built-in handler; user code may have acted already, so that is 503,
    which AWS clients repeat on their own (unless the setting `retry_user_code` says that it may be asked again).

Elsewhere is another instance of the same variant, of the same fleet if there is one. A session's request
(`ties`) goes to nobody else.
"""

import asyncio
from time import monotonic
from typing import Protocol

from clary.domain.faults import Fault
from clary.gateway.answer_heads import AnswerHead, passed_on
from clary.gateway.answers import failed_model, send_fault, timed_out_model, unavailable, unreadable_model
from clary.gateway.balance import Chance, choose_target
from clary.gateway.models import Models
from clary.gateway.pipeline import SMALL_REQUEST
from clary.gateway.plans import EndpointPlan, TargetState, VariantPlan
from clary.gateway.ties import Tie
from clary.gateway.upstream import Broken, Connection, Headers, Waiter
from clary.gateway.watching import Answer, Kept, Watch
from clary.wire.exchange import Exchange

_HELD_ANSWER = 256 << 10  # a longer answer is passed on while it comes
_HELD_ERROR = 16 << 10  # what an error message can use of a container's answer


class Surroundings(Protocol):
    """What an invocation needs of its gateway."""

    loop: asyncio.AbstractEventLoop
    chance: Chance
    models: Models
    max_body_bytes: int

    def current(self, endpoint: EndpointPlan) -> EndpointPlan | None:
        """The plan now in force for the endpoint of an older one."""


class Invocation(Waiter):
    """From the choice of a target to the answer."""

    # What most invocations never change is a default of the class: it costs a request nothing.
    _may_share = True  # a connection with other requests
    _content_type_name = b"Content-Type"
    _tried: tuple[TargetState, ...] = ()
    _has_failed_over = False
    _is_sent_anew = False  # to the same target, which may have seen it before
    _problem = b""  # with a success that cannot be passed on
    _kept: Kept | None = None
    _connection: Connection | None = None
    _is_passing_on = False
    _status = 0
    _size = 0
    _line = b""  # instead of the target's own, the first lines of the request
    _waited_s = 0.0  # which its time-out does not include
    _headers: Headers
    _parts: list[bytes]
    _target: TargetState
    _sent: float
    _is_plain = True  # neither of these two
    tie: Tie | None = None
    watch: Watch | None = None

    def __init__(
        self,
        gateway: Surroundings,
        exchange: Exchange,
        request_id: str,
        received: float,
        endpoint: EndpointPlan,
        variant: VariantPlan,
        fields: bytes,
        body: bytes,
    ) -> None:
        """`fields` are the header lines for the container; `received` is when, on the monotonic clock."""
        self._gateway = gateway
        self._exchange = exchange
        self._request_id = request_id
        self._received = received
        self._endpoint = endpoint
        self._variant = variant
        self._fields = fields
        self._body = body

    def heed(self, tie: Tie | None, watch: Watch | None) -> None:
        """Before it begins: where it may go, and who is told how it ends."""
        self.tie, self.watch = tie, watch
        self._is_plain = tie is None and watch is None

    def begin(self) -> None:
        variant = self._variant
        if self._is_plain:
            target = choose_target(variant.taking, variant.routing, self._gateway.chance)
        else:
            target = self._choose(variant, variant.taking)
        if target is None:
            self._count_failure(is_models=False)
            self._refuse(
                unavailable(
                    f"Endpoint {self._endpoint.name} has no healthy instance for variant {variant.name}."
                )
            )
            return
        if variant.pipelines and self._may_share and len(self._body) <= SMALL_REQUEST:
            self._share(target)
        else:
            self._send(target)

    # What the upstream tells.

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        self._status = head.status
        if self.tie is not None:
            self._take_answer(head, body)
            return
        if head.is_success:
            fields = b"%b%b\r\n%b" % (self._variant.fields, self._request_id.encode(), head.passed_on)
            self._exchange.respond(head.status, fields, body)
            if self.watch is not None:
                self.watch.on_end(self._variant.name, Answer(head.content_type, body))
        else:
            self._refuse(failed_model(self._endpoint, self._container, head.status, body))
        self._finish()

    def _take_answer(self, head: AnswerHead, body: bytes) -> None:
        """The same, for a session's, as if it had come in parts."""
        self._take_head(head.status, head.headers)
        self._parts = [body]
        self.on_complete()

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        self._connection = connection
        self._take_head(status, headers)

    def on_body(self, data: bytes) -> None:
        if self._is_passing_on:
            if self._kept is not None:
                self._kept.add(data)
            self._pass_on(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > _HELD_ERROR and not self.is_success:
            del self._parts[1:]
        elif self._size > _HELD_ANSWER:
            self._begin_passing_on()

    def on_complete(self) -> None:
        self._connection = None  # the pool's again
        if self._is_passing_on:
            self._exchange.end()
            if self._kept is not None and self.watch is not None:
                self._kept.tell(self.watch, self._variant.name, self._content_type())
        elif self.is_success:
            parts = self._parts
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._exchange.respond(self._status, self._answer_fields(), body)
            if self.watch is not None:
                self.watch.on_end(self._variant.name, Answer(self._content_type(), body))
        else:
            body = self._problem or b"".join(self._parts)
            self._refuse(failed_model(self._endpoint, self._container, self._status, body))
        self._finish()

    def on_broken(self, how: Broken) -> None:
        self._judge(how)
        if self._is_passing_on:
            self._count_failure(is_models=True)
            self._exchange.abort()
            self._let_go()
            self._tell_failure()
        elif how is Broken.TIMEOUT:
            self._fail(timed_out_model(self._endpoint, self._container))
        elif how is Broken.CUT or how is Broken.GARBAGE:
            self._fail(unreadable_model(self._endpoint, self._container))
        elif how is Broken.STALE and self._target not in self._tried:
            self._tried += (self._target,)
            self._is_sent_anew = True
            self._send(self._target, fresh=True)
            self._let_go()  # not before: to whoever drains the target it would look idle
        else:
            self._fail_over(how)

    # Inside.

    @property
    def is_success(self) -> bool:
        return 200 <= self._status < 300

    @property
    def _container(self) -> str:
        """The name of the one that was asked, for errors."""
        return self._variant.container

    def _share(self, target: TargetState) -> None:
        """With other requests of this turn, on one connection."""
        self._target = target
        target.outstanding += 1
        if target.trouble is not None:
            target.sent()
        self._sent = monotonic()
        request = (self._line or target.request_line, self._fields, self._body)
        target.pipelines.send(request, self, self._received + self._waited_s + self._endpoint.timeout_s)

    def _send(self, target: TargetState, *, fresh: bool = False) -> None:
        """On a connection of its own."""
        self._target = target
        target.outstanding += 1
        if target.trouble is not None:
            target.sent()
        self._sent = monotonic()
        request = b"".join((self._line or target.request_line, self._fields, self._body))
        deadline = self._received + self._waited_s + self._endpoint.timeout_s
        target.upstream.send(request, self, deadline, fresh=fresh)

    def _let_go(self) -> None:
        """What was sent to the target has ended."""
        self._target.release()

    def _fail_over(self, how: Broken) -> None:
        """Tries another target where that is harmless, else says that the endpoint is not available."""
        was_seen = how is not Broken.UNREACHABLE or self._is_sent_anew
        self._is_sent_anew = False
        self._let_go()
        if self._target not in self._tried:
            self._tried += (self._target,)
        other = None
        if not was_seen or (self._may_run_again and not self._has_failed_over):
            other = self._other_target()
        if other is None:
            self._count_failure(is_models=True)
            self._refuse(
                unavailable(
                    f"An instance of endpoint {self._endpoint.name} ended before it answered. Try again."
                )
            )
            return
        self._has_failed_over |= was_seen
        self._send(other)

    @property
    def _may_run_again(self) -> bool:
        """Although an instance may have seen it."""
        return self._variant.retries_elsewhere and (self.tie is None or self.tie.may_run_twice)

    def _other_target(self) -> TargetState | None:
        """By the routes of now: the request's own may be out of date, as an instance has just gone."""
        endpoint = self._gateway.current(self._endpoint)
        named = endpoint.variants.get(self._variant.name) if endpoint is not None else None
        if named is None:
            return None
        fleet = self._variant.fleet
        beside = (plan.beside(self._variant) for plan in named.plans if plan.takes_traffic)
        plans = [plan for plan in beside if plan is not None]
        plans.sort(key=lambda plan: plan.fleet != fleet)
        in_rotation = [(plan, plan.taking) for plan in plans]
        for plan, targets in (*in_rotation, *((plan, plan.targets) for plan in plans)):
            target = self._choose(plan, targets)
            if target is not None:
                self._variant = plan
                return target
        return None

    def _choose(self, variant: VariantPlan, targets: list[TargetState]) -> TargetState | None:
        chance = self._gateway.chance
        if self.tie is not None:
            return self.tie.choose_target(variant, targets, chance, self._tried)
        return choose_target(targets, variant.routing, chance, self._tried)

    def _take_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers
        self._parts = []
        if self.tie is not None and self.is_success:
            self._problem = self.tie.problem(headers, self._target).encode()
            if self._problem:
                self._status = 500

    def _judge(self, how: Broken) -> None:
        """What a broken exchange says of its target. An answer that a client takes too slowly is an answer."""
        if how is Broken.TIMEOUT and self._is_passing_on:
            self._target.answered()
        elif how is not Broken.STALE:
            self._target.failed(self._sent)

    def _begin_passing_on(self) -> None:
        self._is_passing_on = True
        self._exchange.on_lost = self._drop
        self._exchange.on_writable = self._go_on
        length = next((int(value) for name, value in self._headers if name == b"content-length"), None)
        self._exchange.start(self._status, self._answer_fields(), length=length)
        held = b"".join(self._parts)
        self._parts.clear()
        self._keep(held)
        self._pass_on(held)

    def _keep(self, data: bytes) -> None:
        """From here on the answer is kept for whoever watches, beside being passed on."""
        if self.watch is not None:
            self._kept = Kept()
            self._kept.add(data)

    def _pass_on(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None, "a body follows a head"
        connection.deadline = self._gateway.loop.time() + self._endpoint.timeout_s  # it makes progress
        if not self._exchange.push(data):
            connection.pause_reading()

    def _go_on(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def _drop(self) -> None:
        """The client went in the middle of the answer."""
        if self._connection is not None:
            self._connection.abort()
        if self._target.trouble is not None:
            self._target.answered()
        self._let_go()
        self._tell_failure()

    def _answer_fields(self) -> bytes:
        """Only what SageMaker passes on, of all that the container said."""
        lines = passed_on(self._headers, self._content_type_name)
        if self.tie is not None:
            lines += self.tie.answer_lines(self._headers, self._target)
        return b"%b%b\r\n%b" % (self._variant.fields, self._request_id.encode(), lines)

    def _content_type(self) -> bytes:
        return next((value for name, value in self._headers if name == b"content-type"), b"")

    def _tell_failure(self) -> None:
        if self.watch is not None:
            self.watch.on_end(self._variant.name, None)

    def _finish(self) -> None:
        """The container has answered: counts and lets go of the target."""
        now = monotonic()
        sent = self._sent
        meter = self._variant.meter
        meter.answered(now - sent, sent - self._received)
        if not self.is_success:
            meter.model_errors += 1
            if 400 <= self._status < 500:
                meter.client_errors += 1
            else:
                meter.server_errors += 1
        target = self._target
        if target.trouble is not None:
            target.answered()
        self._let_go()

    def _fail(self, fault: Fault) -> None:
        self._count_failure(is_models=True)
        self._let_go()
        self._refuse(fault)

    def _count_failure(self, *, is_models: bool) -> None:
        meter = self._variant.meter
        meter.invocations += 1
        meter.server_errors += 1
        meter.model_errors += is_models

    def _refuse(self, fault: Fault) -> None:
        send_fault(self._exchange, fault, self._request_id)
        self._tell_failure()
