"""An InvokeEndpoint of a multi-model endpoint: which instance, whether the model is there, and what if it is not.

A model that the target's book knows is called at once, in company like any small request. Otherwise the call waits for
its load (`models`), which does not shorten the time that the model has to answer.

The container's 404 means that the model is not loaded any more: others needed its place. It has not been run, so it is
loaded again and called again, as long as the caller would have waited for its load. Our own server says in words that
this is what it means; where a model in another's turns out to have been loaded all the time, 404 is soon taken for the
model's own word. 507 means that there is no memory to answer with: the model is unloaded and loaded once.
"""

from time import monotonic
from typing import Final

from clary.domain.faults import Fault
from clary.gateway.answer_heads import AnswerHead
from clary.gateway.answers import model_not_loaded
from clary.gateway.invocation import Invocation
from clary.gateway.models import LONGEST_WAIT_S, NOT_LOADED, book_of
from clary.gateway.models_book import Resident
from clary.gateway.pipeline import SMALL_REQUEST
from clary.gateway.plans import TargetState, VariantPlan
from clary.gateway.ties import Tie
from clary.gateway.upstream import Broken
from clary.gateway.watching import Watch

NO_MEMORY: Final = 507
NOT_FOUND: Final = b"Model not found: "
"""How our own model server begins when it does not hold a model; a 404 in other words is the model's."""

MOST_DOUBTS: Final = 2
"""So often a 404 of a model that is loaded is not believed: another gateway may have had it loaded just now."""


class ModelInvocation(Invocation):
    """`model` is the TargetModel."""

    model = ""
    _resident: Resident | None = None
    _is_again = False  # it has been called, and was not there
    _doubts = 0
    _has_made_room = False
    _was_cached = True
    _began_to_wait = 0.0

    def heed(self, tie: Tie | None, watch: Watch | None) -> None:
        super().heed(tie, watch)
        self._is_plain = False

    # What the upstream tells.

    def on_answer(self, head: AnswerHead, body: bytes) -> None:
        if self._is_to_load_again(head.status, body):
            self._load_again(head.status)
        else:
            super().on_answer(head, body)

    def on_complete(self) -> None:
        if self._is_to_load_again(self._status, b"".join(self._parts[:1])):
            self._connection = None  # the pool's again
            self._load_again(self._status)
        else:
            super().on_complete()

    # What the loading of its model tells.

    @property
    def waits_until(self) -> float:
        return self._received + LONGEST_WAIT_S

    def on_loaded(self, resident: Resident, was_loaded: bool) -> None:
        self._waited_s += monotonic() - self._began_to_wait
        if not was_loaded:
            self._was_cached = False
        elif self._is_again:
            self._doubts += 1
        target = self._target
        if self._is_again and self._gateway.loop.time() > self.waits_until:
            self.on_not_loaded("ModelTimeout", "others take its place as soon as it is loaded")
            return
        if self._may_go_together(resident):
            self._share(target)
        else:
            self._send(target)
        target.release()  # not before: to whoever drains the target it would look idle

    def on_not_loaded(self, code: str, message: str) -> None:
        if code == "InstanceMissing":  # it has just gone, and the route does not say so yet
            self._resident = None
            self._fail_over(Broken.UNREACHABLE)
            return
        self._target.release()
        fault = model_not_loaded(self._endpoint, self._variant, self.model, code, message)
        self._count_refusal(fault)
        self._refuse(fault)

    # Inside.

    def _share(self, target: TargetState) -> None:
        resident = self._at_hand(target)
        if resident is None:
            self._wait(target)
        elif resident.runs_script:
            self._begin_call(target, resident)
            super()._send(target)
        else:
            self._begin_call(target, resident)
            super()._share(target)

    def _send(self, target: TargetState, *, fresh: bool = False) -> None:
        resident = self._at_hand(target)
        if resident is None:
            self._wait(target)
        else:
            self._begin_call(target, resident)
            super()._send(target, fresh=fresh)

    def _may_go_together(self, resident: Resident) -> bool:
        is_small = len(self._body) <= SMALL_REQUEST
        return self._variant.pipelines and is_small and not self._tried and not resident.runs_script

    def _at_hand(self, target: TargetState) -> Resident | None:
        return book_of(target).find(self.model)

    def _begin_call(self, target: TargetState, resident: Resident) -> None:
        self._resident = resident
        self._line = resident.line
        resident.under_way += 1
        self._gateway.models.used(target.instance_id, resident)

    def _wait(self, target: TargetState) -> None:
        """The target counts it from now on: an instance is not stopped while calls wait for a model there."""
        self._target = target
        target.outstanding += 1
        self._began_to_wait = monotonic()
        self._gateway.models.wait(target, self.model, self)

    def _let_go(self) -> None:
        resident = self._resident
        if resident is not None:
            resident.under_way -= 1
            if not resident.under_way and not self._variant.keeps_models:
                self._gateway.models.unload(self._target, self.model, resident)
        super()._let_go()

    def _is_to_load_again(self, status: int, body: bytes) -> bool:
        if status == NOT_LOADED and self._variant.pipelines:
            return body.startswith(NOT_FOUND)
        if status == NOT_LOADED:
            return self._doubts < MOST_DOUBTS
        return status == NO_MEMORY and not self._has_made_room

    def _load_again(self, status: int) -> None:
        target, resident = self._target, self._resident
        assert resident is not None, "it has been called"
        self._is_again = True
        if target.trouble is not None:
            target.answered()
        if status == NO_MEMORY:
            self._has_made_room = True
            self._gateway.models.unload(target, self.model, resident)
        else:
            book_of(target).forget(self.model, resident)
        self._send(target)
        resident.under_way -= 1
        target.release()  # not before: to whoever drains the target it would look idle

    @property
    def _may_run_again(self) -> bool:
        runs_script = self._resident is not None and self._resident.runs_script
        return super()._may_run_again and not runs_script

    def _choose(self, variant: VariantPlan, targets: list[TargetState]) -> TargetState | None:
        if not variant.models:  # a fleet of a time when the variant had one model
            return None
        if self.tie is not None and self.tie.chooses:
            return super()._choose(variant, targets)
        return variant.places.choose(self.model, [each for each in targets if each not in self._tried])

    def _finish(self) -> None:
        meter = self._variant.meter
        if self._was_cached:
            meter.model_hits += 1
        else:
            meter.model_misses += 1
            meter.waited_for_model(self._waited_s)
        super()._finish()

    def _count_refusal(self, fault: Fault) -> None:
        if fault.status == 424 or not fault.is_senders:
            self._count_failure(is_models=fault.status == 424)
            return
        meter = self._variant.meter
        meter.invocations += 1
        meter.client_errors += 1
