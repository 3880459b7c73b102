"""A request that goes through all containers of an instance, one after another: an inference pipeline.

Body and content type of one container's answer are the next one's request; the last one's answer is the caller's. The
caller's Accept is meant for the last container, so the others get none and answer as they do by themselves. Custom
attributes go to each. The first answer that is no success ends the chain, and the error names its container.

Time-outs are the chain's, not a container's. Trying again is as for one container, over the whole chain: once one
has answered, the instance has seen the request, and elsewhere it begins again with the first one. A connection that had
been idle is replaced at each container.

An answer in between is held whole, so it may be as long as a request. Latencies are counted for each container; the
variant's is their sum.
"""

from time import monotonic
from typing import Any

from clary.gateway.answer_heads import AnswerHead
from clary.gateway.answers import unreadable_model
from clary.gateway.container_fields import field_lines
from clary.gateway.invocation import Invocation
from clary.gateway.members import CUSTOM_ATTRIBUTES
from clary.gateway.pipeline import SMALL_REQUEST
from clary.gateway.plans import TargetState
from clary.gateway.streams import StreamInvocation
from clary.gateway.upstream import Connection, Headers


class ChainInvocation(Invocation):
    """Sends the request on from container to container; the last one is an ordinary invocation's."""

    _accept_name = b"accept"
    _stage = 0
    _model_s = 0.0  # what the containers took that have answered
    _given: bytes | None  # the content type of what the present container gets

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        get = self._exchange.head.headers.get
        self._asked = self._body
        self._asked_type = get(b"content-type")
        self._accept = get(self._accept_name)
        self._attributes = get(CUSTOM_ATTRIBUTES)

    # What the upstream tells.

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        if self._is_last or not head.is_success:
            super().on_answer(head, body)
        else:
            self._hand_on(head.content_type, body)

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        if self._is_last:
            super().on_head(connection, status, headers)
        else:
            Invocation.on_head(self, connection, status, headers)

    def on_body(self, data: bytes) -> None:
        if self._is_last or not self.is_success:
            super().on_body(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._gateway.max_body_bytes and self._connection is not None:
            self._connection.abort()
            self._connection = None
            if self._target.trouble is not None:
                self._target.answered()
            self._fail(unreadable_model(self._endpoint, self._container))

    def on_complete(self) -> None:
        if self._is_last or not self.is_success:
            super().on_complete()
            return
        self._connection = None  # the pool's again
        self._hand_on(self._content_type(), b"".join(self._parts))

    # Inside.

    @property
    def _is_last(self) -> bool:
        return self._stage == len(self._target.hops) - 1

    @property
    def _container(self) -> str:
        return self._variant.containers[self._stage]

    def _share(self, target: TargetState) -> None:
        self._send(target)

    def _send(self, target: TargetState, *, fresh: bool = False) -> None:
        """From the first container on; `fresh`: what this container has got already, on a new connection."""
        if not fresh:
            self._stage, self._model_s = 0, 0.0
            self._body, self._given = self._asked, self._asked_type
        self._target = target
        target.outstanding += 1
        if target.trouble is not None:
            target.sent()
        self._ask(fresh=fresh)

    def _ask(self, *, fresh: bool = False) -> None:
        """Sends the present container what it is to answer."""
        hop, body = self._target.hops[self._stage], self._body
        accept = self._accept if self._is_last else None
        request = (hop.request_line, field_lines(self._given, accept, self._attributes, len(body)), body)
        deadline = self._received + self._endpoint.timeout_s
        self._sent = monotonic()
        is_first_try = not fresh and not self._has_failed_over
        if (
            self._variant.pipelines
            and is_first_try
            and len(body) <= SMALL_REQUEST
            and (self._may_share or not self._is_last)
        ):
            hop.pipelines.send(request, self, deadline)
        else:
            hop.upstream.send(b"".join(request), self, deadline, fresh=fresh)

    def _hand_on(self, content_type: bytes, body: bytes) -> None:
        """A container has answered with success, and is not the last one."""
        self._note_latency()
        self._stage += 1
        self._size = 0
        # From now on the instance has acted; and the next container's idle connection may have ended as well.
        self._is_sent_anew = True
        self._tried = tuple(each for each in self._tried if each is not self._target)
        self._body, self._given = body, content_type or None
        self._ask()

    def _note_latency(self) -> None:
        took_s = monotonic() - self._sent
        self._model_s += took_s
        self._variant.meter.stages[self._stage].passed(took_s)

    def _finish(self) -> None:
        self._note_latency()
        self._sent = (
            monotonic() - self._model_s
        )  # as if all of them had worked at the end: the rest is overhead
        super()._finish()


class ChainStream(ChainInvocation, StreamInvocation):
    """The last container's answer leaves as it comes."""

    _accept_name = b"x-amzn-sagemaker-accept"
