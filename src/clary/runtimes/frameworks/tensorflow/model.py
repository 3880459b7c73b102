"""TensorFlow SavedModels behind `/invocations`, answered as the TensorFlow Serving container does.

The models are loaded by TensorFlow's C library (`library`), and what Serving's REST API says of requests and answers
holds (`predictions`, `examples`, `targets`). With `code/inference.py` the user's handlers stand around it: they run in
workers, and the models in a process of their own (`handlers`). Unlike the container,

- content types may have parameters, and the texts of a CSV line may be more than two;
- requests that came together are run together only where batching is enabled, and never wait for one another;
- gRPC is not served; version labels, which the container cannot configure either, are unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.runtimes.contract import (
    InvocationHead,
    InvocationRequest,
    InvocationResponse,
    Limits,
    Scripted,
    UnsupportedMediaType,
)
from clary.runtimes.frameworks.tensorflow import handlers
from clary.runtimes.frameworks.tensorflow.bundles import default_of, find_bundles
from clary.runtimes.frameworks.tensorflow.faults import ServingFault
from clary.runtimes.frameworks.tensorflow.payloads import answer_type, kind_of, to_serving_json
from clary.runtimes.frameworks.tensorflow.servables import Call, Servables
from clary.runtimes.frameworks.tensorflow.settings import read_settings
from clary.runtimes.frameworks.tensorflow.targets import Target, attributes_of, path_of, target_of
from clary.runtimes.handler import find_script
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES

_MOST_PLANS = 256


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> "TensorFlowModel | Scripted":
    bundles = find_bundles(model_dir)
    default = default_of(bundles, environment)
    settings = read_settings(environment, vcpus)
    script = find_script(model_dir, environment)
    if script is not None:
        return handlers.serve(script, bundles, default, settings, environment, vcpus)
    return TensorFlowModel(Servables(bundles, settings), default)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What requests with certain headers want: worked out once for each combination."""

    kind: str
    target: Target | ServingFault
    content_type: str


class TensorFlowModel:
    """See `contract.Model`."""

    limits = Limits(LARGEST_PAYLOAD_BYTES)

    def __init__(self, servables: Servables, default: str) -> None:
        self._servables = servables
        self._default = default
        self._plans: dict[tuple[str | None, str | None, str], _Plan | InvocationResponse] = {}

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        plans = [self._plan(request.head) for request in batch]
        calls = [
            Call(plan.target, to_serving_json(plan.kind, bytes(request.body)))
            for plan, request in zip(plans, batch, strict=True)
            if isinstance(plan, _Plan)
        ]
        replies = iter(self._servables.answer(calls))
        responses = []
        for plan in plans:
            if isinstance(plan, _Plan):
                status, body = next(replies)
                plan = InvocationResponse(status, plan.content_type, body)
            responses.append(plan)
        return responses

    def _plan(self, head: InvocationHead) -> _Plan | InvocationResponse:
        key = (head.content_type, head.accept, head.custom_attributes)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._new_plan(head)
        return plan

    def _new_plan(self, head: InvocationHead) -> _Plan | InvocationResponse:
        try:
            kind = kind_of(head.content_type)
        except UnsupportedMediaType as error:
            return handlers.error_response(error.status, str(error))
        path = path_of(attributes_of(head.custom_attributes), self._default)
        try:
            target: Target | ServingFault = target_of("POST", path)
        except ServingFault as fault:
            target = fault
        return _Plan(kind, target, answer_type(head.accept))
