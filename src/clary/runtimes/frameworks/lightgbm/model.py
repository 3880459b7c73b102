"""LightGBM boosters without a script, or a script's handlers around the model that its `model_fn` reads.

Without a script the archive has one booster in its root, and all rows that wait, whichever request they came with, are
predicted in one call of the library. Content types, words and notation are those of the XGBoost runtime; besides, JSON
is read, and `Accept: application/json;verbose` gives a classifier's labels with their probabilities, as the AWS
examples for LightGBM have it.
"""

import importlib
import logging
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.runtimes import encoding
from clary.runtimes.contract import (
    InvocationError,
    InvocationRequest,
    InvocationResponse,
    Limits,
    LoadError,
)
from clary.runtimes.frameworks.lightgbm import library, payloads
from clary.runtimes.frameworks.lightgbm.answers import Answers
from clary.runtimes.frameworks.lightgbm.artefacts import Found, model_path, read_model
from clary.runtimes.frameworks.lightgbm.library import Booster, LightGBMError
from clary.runtimes.handler import Defaults, find_script
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES, serve_script
from clary.runtimes.slices import Slices
from clary.runtimes.workers import ScriptedModel

ROWS_A_THREAD = 2048
_NO_CONTENT = InvocationResponse(204, "", b"")

log = logging.getLogger(__name__)


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> "LightGBMModel | ScriptedModel":
    script = find_script(model_dir, environment)
    if script is not None:
        return serve_script(script, model_dir, environment, vcpus, DEFAULTS)
    library.use_one_thread()
    found = read_model(model_dir)
    booster = _booster(found)
    default = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
    answers = Answers(default, bool(environment.get("SAGEMAKER_BATCH")), booster, found.labels)
    return LightGBMModel(Rows(booster, vcpus), answers)


def _booster(found: Found) -> Booster:
    log.info("loading %s, %d characters, with LightGBM %s", found.name, len(found.text), library.version())
    try:
        booster = Booster(found.text, found.best_iteration)
    except LightGBMError as error:
        raise LoadError(f"LightGBM cannot load {found.name}: {error}") from error
    log.info("%s has objective %s and %d features", found.name, booster.objective, booster.features)
    if booster.has_fast_row:
        log.info(
            "single rows take LightGBM's own way for them: %d rows gave what Booster.predict gives, in every bit",
            library.TRIED_ROWS,
        )
    return booster


class Rows:
    """A booster; large inputs are cut up and predicted on several threads."""

    def __init__(self, booster: Booster, threads: int) -> None:
        self._booster = booster
        self._slices = Slices(threads, ROWS_A_THREAD)
        self.features = booster.features
        self.outputs = booster.outputs

    def predict(self, values: "array[float]") -> list[float]:
        """Scores of all rows, `outputs` of them a row. Raises `LightGBMError`."""
        return self._slices.predict(self._predict, values, self.features)

    def _predict(self, values: "array[float]") -> list[float]:
        return self._booster.predict(values, len(values) // self.features)


class LightGBMModel:
    """See `contract.Model`."""

    def __init__(self, rows: Rows, answers: Answers) -> None:
        self._rows = rows
        self._answers = answers

    @property
    def limits(self) -> Limits:
        return Limits(LARGEST_PAYLOAD_BYTES)

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        values: array[float] = array("d")
        outcomes: list[str | InvocationResponse] = []
        ends: list[int] = []
        for request in batch:
            outcomes.append(self._read(request, values))
            ends.append(len(values) // self._rows.features * self._rows.outputs)
        scores = self._rows.predict(values) if values else []
        starts = [0, *ends]
        return [
            outcome
            if isinstance(outcome, InvocationResponse)
            else self._answers.respond(outcome, scores[start:end])
            for outcome, start, end in zip(outcomes, starts, ends)
        ]

    def _read(self, request: InvocationRequest, values: "array[float]") -> str | InvocationResponse:
        """Appends the request's rows; the form of its answer, or the answer when there is nothing to predict."""
        head, body = request
        if not body:
            return _NO_CONTENT
        mark = len(values)
        try:
            kind = self._answers.kind_for(head.accept)
            payloads.reader_for(head.content_type)(body, self._rows.features, values)
        except InvocationError as error:
            del values[mark:]
            return error.response()
        return kind


def _input_fn(data: str | bytes, content_type: str) -> Any:
    """Rows, also when there is one."""
    array_of = encoding.decode(data, content_type)
    return array_of.reshape(1, -1) if getattr(array_of, "ndim", 2) == 1 else array_of


def _predict_fn(data: Any, model: Any) -> Any:
    return model.predict(data)


def _model_fn(model_dir: str) -> Any:
    """What the archive holds, as LightGBM has it: a Booster, or a pickled model as it was."""
    path = model_path(Path(model_dir))
    if path.read_bytes()[:5] == b"tree\n":
        return importlib.import_module("lightgbm").Booster(model_file=str(path))
    return importlib.import_module("joblib").load(path)


DEFAULTS = Defaults("LightGBM", _predict_fn, model_fn=_model_fn, input_fn=_input_fn)
