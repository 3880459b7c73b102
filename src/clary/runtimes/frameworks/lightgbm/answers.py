"""Scores become answers, in the forms of the XGBoost runtime.

A score is written as Python writes it, so nothing is lost. `Accept: application/json;verbose` (a comma or blank may
stand between) asks a classifier for its probabilities, labels and the likeliest of them, each row by row; a regressor
gives `prediction` then.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from clary.runtimes.contract import InvocationResponse, NotAcceptable

CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
VERBOSE = "application/json;verbose"
ACCEPTED = (CSV, JSON, VERBOSE, JSON_LINES)
_CLASSIFIES = ("binary", "multiclass", "multiclassova", "cross_entropy")

Score = float | list[float]
"""Of one row: a number, or one for each class."""


class Scored(Protocol):
    """As much of a booster as this takes."""

    @property
    def outputs(self) -> int: ...

    @property
    def objective(self) -> str: ...

    @property
    def classes(self) -> int: ...


class Answers:
    """How one instance answers: fixed when it starts."""

    def __init__(self, default: str, is_batch: bool, scored: Scored, labels: Sequence[Any] = ()) -> None:
        self._default = default
        self._is_batch = is_batch
        self._width = scored.outputs
        self._classifies = scored.objective in _CLASSIFIES
        count = max(2, scored.classes)
        self._labels = list(labels) if len(labels) == count else list(range(count))

    def kind_for(self, accept: str | None) -> str:
        """The form that an Accept header asks for. Raises `NotAcceptable`."""
        wanted = (accept or "").strip()
        if wanted in ("", "*/*"):
            wanted = self._default
        kind, _, parameters = wanted.lower().replace(" ", "").partition(";")
        if kind == JSON and parameters == "verbose":
            return VERBOSE
        if kind not in ACCEPTED:
            raise NotAcceptable(
                f"Accept type {wanted} is not supported. Please use supported accept types: {', '.join(ACCEPTED)}."
            )
        return kind

    def respond(self, kind: str, scores: Sequence[float]) -> InvocationResponse:
        """`scores` are those of one request, row after row."""
        if self._is_batch:
            kind = CSV
        if len(scores) == 1 and kind == CSV:
            return InvocationResponse(200, "text/csv; charset=utf-8", b"%a\n" % scores[0])
        rows: list[Score] = list(scores)
        if self._width > 1:
            rows = [list(scores[start : start + self._width]) for start in range(0, len(scores), self._width)]
        content_type = "text/csv; charset=utf-8" if kind == CSV else kind.partition(";")[0]
        return InvocationResponse(200, content_type, self._encode(kind, rows).encode())

    def _encode(self, kind: str, rows: Sequence[Score]) -> str:
        if kind == VERBOSE:
            return json.dumps(self._verbose(rows))
        if kind == JSON:
            return f'{{"predictions": [{", ".join(map(_json_row, rows))}]}}'
        return "".join(f"{line}\n" for line in map(_csv_row if kind == CSV else _json_row, rows))

    def _verbose(self, rows: Sequence[Score]) -> dict[str, Any]:
        if not self._classifies:
            return {"prediction": list(rows)}
        probabilities = [row if isinstance(row, list) else [1.0 - row, row] for row in rows]
        likeliest = [self._labels[max(range(len(row)), key=row.__getitem__)] for row in probabilities]
        return {"probabilities": probabilities, "labels": self._labels, "predicted_label": likeliest}


def _csv_row(score: Score) -> str:
    return ",".join(map(repr, score)) if isinstance(score, list) else repr(score)


def _json_row(score: Score) -> str:
    return json.dumps({"score": score})
