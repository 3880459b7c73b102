"""Copies of requests for shadow variants. What becomes of them never touches a caller.

A copy goes out after the request itself has, on connections of its own; its answer is read and thrown away, and how it
went is counted under the shadow's name. What would pile up is dropped and counted instead (`ShadowInvocationsDropped`):
when a shadow is as far behind as it may be, or has no instance. A copy is tried again only where an idle connection
had ended. Requests of stateful sessions are not copied: the shadow does not know the session.

A shadow with many models gets copies of requests that name a model, and loads it by itself; others are dropped. One
with a single model answers for whatever model the caller named.
"""

import asyncio
from collections import Counter
from time import monotonic

from clary.domain.routes import EndpointKey
from clary.gateway.answer_heads import AnswerHead
from clary.gateway.balance import Chance, choose_target
from clary.gateway.meters import SHADOWS_DROPPED
from clary.gateway.models import NOT_LOADED, Models, book_of
from clary.gateway.models_book import Resident
from clary.gateway.pipeline import SMALL_REQUEST
from clary.gateway.plans import EndpointPlan, TargetState, VariantPlan
from clary.gateway.upstream import Broken, Connection, Headers, Waiter
from clary.gateway.watching import Kept, Watch

MOST_UNDER_WAY = 128
"""Copies that one shadow has outstanding at this gateway."""

MOST_BYTES = 64 << 20
"""Bodies of all copies under way."""


class Shadows:
    """One for a gateway."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Chance, models: Models) -> None:
        self.loop = loop
        self.models = models
        self._chance = chance
        self._under_way: Counter[tuple[EndpointKey, str]] = Counter()
        self._bytes = 0

    def copy(
        self,
        endpoint: EndpointPlan,
        fields: bytes,
        body: bytes,
        timeout_s: float,
        watch: Watch | None,
        model: str = "",
    ) -> None:
        """Sends the request to the endpoint's shadows, as often as their weights say."""
        for shadow in endpoint.shadows:
            if self._chance() < shadow.weight:
                self._send(endpoint, shadow, fields, body, timeout_s, watch, model)

    def _send(
        self,
        endpoint: EndpointPlan,
        shadow: VariantPlan,
        fields: bytes,
        body: bytes,
        timeout_s: float,
        watch: Watch | None,
        model: str,
    ) -> None:
        target = self._choose(shadow, model)
        place = endpoint.key, shadow.name
        is_behind = self._under_way[place] >= MOST_UNDER_WAY or self._bytes + len(body) > MOST_BYTES
        if target is None or is_behind:
            shadow.meter.count(SHADOWS_DROPPED)
            return
        self._under_way[place] += 1
        self._bytes += len(body)
        kind = _ModelCopy if shadow.models else _Copy
        copy = kind(self, place, shadow, target, fields, body, monotonic() + timeout_s, watch)
        copy.model = model
        copy.begin()

    def _choose(self, shadow: VariantPlan, model: str) -> TargetState | None:
        if not shadow.models:
            return choose_target(shadow.taking, shadow.routing, self._chance)
        return shadow.places.choose(model, shadow.taking) if model else None

    def ended(self, place: tuple[EndpointKey, str], size: int) -> None:
        self._bytes -= size
        self._under_way[place] -= 1
        if not self._under_way[place]:
            del self._under_way[place]


class _Copy(Waiter):
    """One request at one shadow's instance."""

    model = ""
    _line = b""  # instead of the target's own
    _may_share = True  # a connection with other requests
    _is_fresh = False
    _status = 0
    _content_type = b""
    _kept: Kept | None = None

    def __init__(
        self,
        shadows: Shadows,
        place: tuple[EndpointKey, str],
        shadow: VariantPlan,
        target: TargetState,
        fields: bytes,
        body: bytes,
        deadline: float,
        watch: Watch | None,
    ) -> None:
        self._shadows = shadows
        self._place = place
        self._shadow = shadow
        self._target = target
        self._fields = fields
        self._body = body
        self._deadline = deadline
        self._watch = watch
        self._received = self._sent = monotonic()

    def begin(self) -> None:
        target = self._target
        target.outstanding += 1
        target.sent()
        if self._shadow.pipelines and self._may_share and len(self._body) <= SMALL_REQUEST:
            line = self._line or target.request_line
            target.pipelines.send((line, self._fields, self._body), self, self._deadline)
        else:
            self._send()

    def _send(self) -> None:
        """On a connection of its own. The body is written after the head: the caller's bytes, not a copy of them."""
        self._sent = monotonic()
        head = (self._line or self._target.request_line) + self._fields
        self._target.upstream.send(head, self, self._deadline, fresh=self._is_fresh)

    # What the upstream tells.

    def on_connected(self, connection: Connection) -> None:
        if self._body:
            connection.write(self._body)

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        self._take_head(head.status, head.headers)
        if self._kept is not None:
            self._kept.add(body)
        self.on_complete()

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        self._take_head(status, headers)

    def on_body(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept.add(data)

    def on_complete(self) -> None:
        self._target.answered()
        meter = self._shadow.meter
        meter.answered(monotonic() - self._sent, self._sent - self._received)
        if not 200 <= self._status < 300:
            meter.model_errors += 1
            if 400 <= self._status < 500:
                meter.client_errors += 1
            else:
                meter.server_errors += 1
        self._end()

    def on_broken(self, how: Broken) -> None:
        if how is Broken.STALE and not self._is_fresh:
            self._is_fresh = True
            self._send()
            return
        self._target.failed(self._sent)
        self._fail()

    # Inside.

    def _fail(self) -> None:
        meter = self._shadow.meter
        meter.invocations += 1
        meter.server_errors += 1
        meter.model_errors += 1
        self._kept = None
        self._end()

    def _take_head(self, status: int, headers: Headers) -> None:
        self._status = status
        if self._watch is not None and 200 <= status < 300:
            self._kept = Kept()
            self._content_type = next((value for name, value in headers if name == b"content-type"), b"")

    def _end(self) -> None:
        self._target.release()
        self._shadows.ended(self._place, len(self._body))
        if self._watch is None:
            return
        if self._kept is not None:
            self._kept.tell(self._watch, self._shadow.name, self._content_type)
        else:
            self._watch.on_end(self._shadow.name, None)


class _ModelCopy(_Copy):
    """The same at an instance with many models, once `model` is loaded there. A copy whose model is unloaded before it
    comes fails; the next one has it loaded again."""

    _resident: Resident | None = None

    def begin(self) -> None:
        resident = book_of(self._target).find(self.model)
        if resident is not None:
            self._call(resident)
        else:
            self._target.outstanding += 1  # an instance is not stopped while calls wait for a model there
            self._shadows.models.wait(self._target, self.model, self)

    # What the loading of its model tells.

    @property
    def waits_until(self) -> float:
        return self._deadline

    def on_loaded(self, resident: Resident, was_loaded: bool) -> None:
        self._call(resident)
        self._target.release()  # not before: to whoever drains the target it would look idle

    def on_not_loaded(self, code: str, message: str) -> None:
        self._fail()

    # Inside.

    def on_complete(self) -> None:
        if self._status == NOT_LOADED and self._resident is not None:
            book_of(self._target).forget(self.model, self._resident)
        super().on_complete()

    def _call(self, resident: Resident) -> None:
        self._resident = resident
        self._line = resident.line
        self._may_share = not resident.runs_script
        resident.under_way += 1
        self._shadows.models.used(self._target.instance_id, resident)
        super().begin()

    def _end(self) -> None:
        resident = self._resident
        if resident is not None:
            resident.under_way -= 1
            if not resident.under_way and not self._shadow.keeps_models:
                self._shadows.models.unload(self._target, self.model, resident)
        super()._end()
