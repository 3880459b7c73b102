"""The loaded models by name and version, and how calls to them are answered.

Each call is a run of its own. With `SAGEMAKER_TFS_ENABLE_BATCHING` what waits is run together: calls of one signature
whose inputs fit, as many rows as allowed, never waiting for more. Only then, because a model may give a row other
digits in company than alone.

A run that is expected to take less than half a millisecond stays in the thread that asks; a longer one gets the
session's threads, so that its branches may run side by side, and lets this process go on meanwhile. What to expect is
learnt from the sizes of inputs: the first run is a long one.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.tensorflow import descriptions, examples
from clary.runtimes.frameworks.tensorflow.bundles import Bundle
from clary.runtimes.frameworks.tensorflow.dtypes import Array
from clary.runtimes.frameworks.tensorflow.faults import (
    InvalidArgument,
    NotFound,
    RunFailed,
    ServingFault,
    TensorFlowError,
)
from clary.runtimes.frameworks.tensorflow.library import Session, release_memory, version
from clary.runtimes.frameworks.tensorflow.predictions import (
    DEFAULT_SIGNATURE,
    Document,
    read_document,
    read_feeds,
    write_answer,
)
from clary.runtimes.frameworks.tensorflow.protobufs import SignatureDef
from clary.runtimes.frameworks.tensorflow.settings import Settings
from clary.runtimes.frameworks.tensorflow.targets import Target
from clary.runtimes.frameworks.tensorflow.tensors import dump

SHORT_S = 0.0005
_METHODS = {"classify": examples.CLASSIFY, "regress": examples.REGRESS}

log = logging.getLogger(__name__)


class Call(NamedTuple):
    target: Target | ServingFault
    body: bytes


class Reply(NamedTuple):
    status: int
    body: bytes


@dataclass(slots=True)
class _Run:
    """What a call wants run. `count` is the rows of all inputs where they agree, else 0."""

    servable: "Servable"
    document: Document
    method: str
    signature: SignatureDef
    tensors: Mapping[str, Array]
    by_rows: bool
    count: int

    def write(self, outputs: Mapping[str, Array]) -> bytes:
        if self.method == "classify":
            return examples.write_classes(outputs, self.count)
        if self.method == "regress":
            return examples.write_values(outputs, self.count)
        return write_answer(outputs, by_rows=self.by_rows)


class Servable:
    """One version of one model."""

    def __init__(self, name: str, number: int, directory: Path, settings: Settings) -> None:
        self.name = name
        self.number = number
        try:
            self._session = Session(directory, settings.intra_op_threads, settings.inter_op_threads)
        except (TensorFlowError, ValueError) as error:
            raise LoadError(
                f"TensorFlow {version()} cannot load {directory.parent.name}/{directory.name}: {error}"
            ) from error
        self.signatures = self._session.signatures
        self._short_bytes = 0  # inputs up to this size were run in a short time
        default = self.signatures.get(DEFAULT_SIGNATURE)
        if default is not None and default.inputs:
            self._session.prepare(default)

    def run(self, signature: SignatureDef, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. Raises `ServingFault`."""
        inputs = signature.inputs
        feeds = [(inputs[name].name, inputs[name].dtype, tensor) for name, tensor in tensors.items()]
        fetches = [output.name for output in signature.outputs.values()]
        size = sum([tensor.nbytes for tensor in tensors.values()])
        began = time.perf_counter()
        try:
            results = self._session.run(feeds, fetches, is_short=size <= self._short_bytes)
        except TensorFlowError as error:
            raise RunFailed(error) from error
        if time.perf_counter() - began < SHORT_S:
            self._short_bytes = max(self._short_bytes, size)
        elif size <= self._short_bytes:
            self._short_bytes = size // 2
        return dict(zip(signature.outputs, results, strict=True))


class Servables:
    """All that is loaded. `answer` may be called from several threads at once."""

    def __init__(self, bundles: Sequence[Bundle], settings: Settings) -> None:
        """Raises `LoadError`."""
        self._by_name = {
            bundle.name: {
                number: _load(bundle.name, number, bundle.versions[number], settings)
                for number in sorted(bundle.versions)
            }
            for bundle in bundles
        }
        self._max_batch_size = settings.max_batch_size
        release_memory()

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        """Never raises for what is in a call."""
        outcomes = [self._prepare(call) for call in calls]
        if self._max_batch_size and len(calls) > 1:
            self._run_together(outcomes)
        return [outcome if isinstance(outcome, Reply) else _run(outcome) for outcome in outcomes]

    def find(self, target: Target) -> Servable:
        """Raises `NotFound`."""
        versions = self._by_name.get(target.name, {})
        if target.label:
            raise NotFound(f"Unrecognized servable version label: {target.label}")
        if target.version is None:
            if not versions:
                raise NotFound(f"Servable not found for request: Latest({target.name})")
            return versions[max(versions)]
        if target.version not in versions:
            raise NotFound(f"Servable not found for request: Specific({target.name}, {target.version})")
        return versions[target.version]

    def _prepare(self, call: Call) -> "_Run | Reply":
        try:
            if isinstance(call.target, ServingFault):
                raise call.target
            if call.target.method == "status":
                return Reply(200, self._status_of(call.target))
            servable = self.find(call.target)
            if call.target.method == "metadata":
                return Reply(200, descriptions.metadata(servable.name, servable.number, servable.signatures))
            return _read(servable, call.target.method, call.body)
        except ServingFault as fault:
            return refusal(fault)

    def _status_of(self, target: Target) -> bytes:
        versions = self._by_name.get(target.name, {})
        if not versions:
            raise NotFound(f"Could not find any versions of model {target.name}")
        chosen = list(versions) if target.version is None else [self.find(target).number]
        return descriptions.status(sorted(chosen, reverse=True))

    def _run_together(self, outcomes: "list[_Run | Reply]") -> None:
        """Puts the replies of those that share a run in their places."""
        alike: dict[object, list[int]] = {}
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, _Run) and outcome.count and outcome.method == "predict":
                alike.setdefault(_likeness(outcome), []).append(place)
        for places in alike.values():
            for group in _groups(places, outcomes, self._max_batch_size):
                _run_group(group, outcomes)


def refusal(fault: ServingFault) -> Reply:
    return Reply(fault.status, dump({"error": str(fault)}))


def _load(name: str, number: int, directory: Path, settings: Settings) -> Servable:
    began = time.monotonic()
    servable = Servable(name, number, directory, settings)
    took_ms = (time.monotonic() - began) * 1000
    log.info("loaded model %s, version %d, with TensorFlow %s in %.0f ms", name, number, version(), took_ms)
    return servable


def _read(servable: Servable, method: str, body: bytes) -> _Run:
    document = read_document(body)
    signature = servable.signatures.get(document.signature)
    if signature is None:
        words = f'Serving signature name: "{document.signature}" not found in signature def'
        if method != "predict":
            words = f"No signature was found with the name: {document.signature}"
        raise InvalidArgument(words)
    if method == "predict":
        tensors, by_rows = read_feeds(document, signature)
        return _Run(servable, document, method, signature, tensors, by_rows, _rows_in(tensors))
    examples.check_method(signature, _METHODS[method])
    tensor = examples.read_examples(document)
    return _Run(servable, document, method, signature, {examples.INPUTS: tensor}, True, len(tensor))


def _rows_in(tensors: Mapping[str, Array]) -> int:
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors.values()}
    return counts.pop() if len(counts) == 1 else 0


def _run(run: _Run) -> Reply:
    try:
        return Reply(200, run.write(run.servable.run(run.signature, run.tensors)))
    except ServingFault as fault:
        return refusal(fault)


def _likeness(run: _Run) -> object:
    shapes = tuple((name, tensor.shape[1:]) for name, tensor in run.tensors.items())
    return id(run.servable), run.document.signature, shapes


def _groups(places: Sequence[int], outcomes: "Sequence[_Run | Reply]", most: int) -> list[list[int]]:
    """In their order, as many together as have at most so many rows."""
    groups: list[list[int]] = []
    room = 0
    for place in places:
        outcome = outcomes[place]
        rows = outcome.count if isinstance(outcome, _Run) else 0
        if rows > room:
            groups.append([])
            room = most
        groups[-1].append(place)
        room -= rows
    return [group for group in groups if len(group) > 1]


def _run_group(group: Sequence[int], outcomes: "list[_Run | Reply]") -> None:
    """Leaves them as they are, to be run one by one, when the outputs have not as many rows as went in."""
    runs = [outcome for place in group if isinstance(outcome := outcomes[place], _Run)]
    first = runs[0]
    tensors = {name: np.concatenate([run.tensors[name] for run in runs]) for name in first.tensors}
    try:
        outputs = first.servable.run(first.signature, tensors)
    except ServingFault:
        return
    count = sum(run.count for run in runs)
    if any(not array.shape or array.shape[0] != count for array in outputs.values()):
        return
    start = 0
    for place, run in zip(group, runs, strict=True):
        part = {name: array[start : start + run.count] for name, array in outputs.items()}
        start += run.count
        try:
            outcomes[place] = Reply(200, run.write(part))
        except ServingFault as fault:
            outcomes[place] = refusal(fault)
