"""The built-in XGBoost algorithm's serving side: one booster or an ensemble of them.

All rows that wait, whichever request they came with, are predicted in one call of the library. Status, words and
notation are the AWS container's, except that

- rows with too few columns are refused (400) like those with too many; the container takes them for missing values;
- libsvm indexes are used as they are; newer containers shift them when no index is 0, which mistakes sparse rows;
- a CSV's delimiter is the first of comma, tab, semicolon, bar and blank that its first line has, not guessed;
- `application/jsonlines` is read too; recordIO is read but not written;
- what only an older XGBoost reads has an environment of that version (`[older]` in the manifest), with this module;
- scripts are `xgboost_script`'s.
"""

import logging
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clary.runtimes.contract import (
    BadRequest,
    InvocationError,
    InvocationHead,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
    UnsupportedMediaType,
)
from clary.runtimes.frameworks.xgboost import library
from clary.runtimes.frameworks.xgboost.answers import Answers, content_type_of
from clary.runtimes.frameworks.xgboost.artefacts import read_models
from clary.runtimes.frameworks.xgboost.library import Booster, XGBoostError
from clary.runtimes.frameworks.xgboost.payloads import Reader, reader_for
from clary.runtimes.frameworks.xgboost.selections import Score, Selection, select
from clary.runtimes.slices import Slices

DEFAULT_PAYLOAD_BYTES = 6_291_456
ROWS_A_THREAD = 4096
_VOTED = ("multi:softmax", "binary:hinge")
_MOST_PLANS = 256
_NO_CONTENT = InvocationResponse(204, "", b"")

log = logging.getLogger(__name__)


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> "XGBoostModel":
    boosters = [_load_booster(name, content) for name, content in read_models(model_dir, environment)]
    first = boosters[0]
    if {(each.features, each.outputs) for each in boosters} != {(first.features, first.outputs)}:
        raise LoadError("the models of the ensemble differ in the number of their features or outputs")
    wanted = environment.get("SAGEMAKER_INFERENCE_OUTPUT")
    selection: Selection | None = None
    if wanted is not None:
        selection = select(wanted, first.objective, first.classes)
    limit = environment.get("MAX_CONTENT_LENGTH", str(DEFAULT_PAYLOAD_BYTES))
    if not limit.isdigit():
        raise LoadError(f"MAX_CONTENT_LENGTH is {limit!r}, which is no number of bytes")
    return XGBoostModel(Forest(boosters, vcpus), Answers(environment, selection), Limits(int(limit)))


def _load_booster(name: str, content: bytes) -> Booster:
    log.info("loading %s, %d bytes, with XGBoost %s", name, len(content), library.version())
    try:
        booster = Booster(content)
    except XGBoostError as error:
        raise LoadError(f"XGBoost cannot load {name}: {error}") from error
    log.info("%s has objective %s and %d features", name, booster.objective, booster.features)
    return booster


class Forest:
    """Boosters that answer as one; large inputs are cut up and predicted on several threads."""

    def __init__(self, boosters: Sequence[Booster], threads: int) -> None:
        self._boosters = boosters
        self._slices = Slices(threads, ROWS_A_THREAD)
        self.features = boosters[0].features
        self.outputs = boosters[0].outputs
        self._votes = boosters[0].objective in _VOTED

    def predict(self, values: "array[float]") -> list[float]:
        """Scores of all rows, `outputs` of them a row. Raises `XGBoostError`."""
        return self._slices.predict(self._predict, values, self.features)

    def _predict(self, values: "array[float]") -> list[float]:
        rows = len(values) // self.features
        if len(self._boosters) == 1:
            return self._boosters[0].predict(values, rows)
        each = np.array([booster.predict(values, rows) for booster in self._boosters], dtype=np.float32)
        combined: list[float] = (_vote(each) if self._votes else each.mean(axis=0)).tolist()
        return combined


def _vote(
    each: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """The label most boosters gave each row; of several such the smallest."""
    labels, places = np.unique(each, return_inverse=True)
    counts = np.apply_along_axis(np.bincount, 0, places.reshape(each.shape), minlength=len(labels))
    winners: np.ndarray[tuple[int], np.dtype[np.float32]] = labels[counts.argmax(axis=0)]
    return winners


@dataclass(frozen=True, slots=True)
class _Plan:
    """What requests with certain headers want: worked out once for each combination."""

    read: Reader
    kind: str
    refusal: InvocationResponse | None  # when no answer has the form they accept


class XGBoostModel:
    """See `contract.Model`."""

    def __init__(self, forest: Forest, answers: Answers, limits: Limits) -> None:
        self._forest = forest
        self._answers = answers
        self._limits = limits
        self._plans: dict[tuple[str | None, str | None], _Plan] = {}

    @property
    def limits(self) -> Limits:
        return self._limits

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        values: array[float] = array("f")
        outcomes: list[_Plan | InvocationResponse] = []
        ends: list[int] = []
        for request in batch:
            outcomes.append(self._read(request, values))
            ends.append(len(values))
        if values and np.isinf(np.frombuffer(values, dtype=np.float32)).any():
            self._refuse_infinite(values, outcomes, ends)
        try:
            scores = self._forest.predict(values) if values else []
        except XGBoostError as error:
            if len(batch) > 1:
                return [self.predict([request])[0] for request in batch]
            return [BadRequest(f"Unable to evaluate payload provided: {error}").response()]
        return self._respond(outcomes, ends, scores)

    def _read(self, request: InvocationRequest, values: "array[float]") -> _Plan | InvocationResponse:
        """Appends the request's rows; how to answer it, or the answer when there is nothing to predict."""
        head, body = request
        if not body:
            return _NO_CONTENT
        mark = len(values)
        try:
            plan = self._plans.get((head.content_type, head.accept)) or self._plan(head)
            plan.read(body, self._forest.features, values)
        except InvocationError as error:
            del values[mark:]
            return error.response()
        return plan

    def _plan(self, head: InvocationHead) -> _Plan:
        read = reader_for(head.content_type)
        try:
            kind, refusal = self._answers.kind_for(head.accept), None
        except InvocationError as error:
            kind, refusal = "", error.response()
        plan = _Plan(read, kind, refusal)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[head.content_type, head.accept] = plan
        return plan

    def _refuse_infinite(
        self, values: "array[float]", outcomes: list[_Plan | InvocationResponse], ends: Sequence[int]
    ) -> None:
        """XGBoost's own check, which it makes for a matrix and not for data predicted in place."""
        infinite = UnsupportedMediaType(
            "Loading data failed with Exception: Input data contains `inf` or a value too large, while "
            "`missing` is not set to `inf`"
        )
        start = 0
        for number, end in enumerate(ends):
            if any(map(math.isinf, values[start:end])):
                outcomes[number] = infinite.response()
            start = end

    def _respond(
        self, outcomes: Sequence[_Plan | InvocationResponse], ends: Sequence[int], scores: Sequence[float]
    ) -> list[InvocationResponse]:
        features, outputs = self._forest.features, self._forest.outputs
        responses = []
        start = 0
        for outcome, end in zip(outcomes, ends, strict=True):
            stop = end // features * outputs
            if isinstance(outcome, InvocationResponse):
                responses.append(outcome)
            else:
                responses.append(outcome.refusal or self._answer(outcome.kind, scores[start:stop]))
            start = stop
        return responses

    def _answer(self, kind: str, scores: Sequence[float]) -> InvocationResponse:
        """`scores` are those of one request, row after row."""
        if len(scores) == 1 and kind == "text/csv" and self._answers.is_plain:
            return InvocationResponse(200, "text/csv; charset=utf-8", b"%a\n" % scores[0])
        width = self._forest.outputs
        rows: Sequence[Score] = scores
        if width > 1:
            rows = [list(scores[start : start + width]) for start in range(0, len(scores), width)]
        try:
            return InvocationResponse(200, content_type_of(kind), self._answers.encode(kind, rows))
        except InvocationError as error:
            return error.response()
