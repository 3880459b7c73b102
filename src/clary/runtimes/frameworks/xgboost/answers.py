"""Scores become answers, in the forms and the very notation of the built-in algorithm.

A score is a 32-bit float; it is written as Python writes its value, so nothing is lost and a reader gets
back exactly what the booster said. `SAGEMAKER_INFERENCE_OUTPUT` chooses what a classifier tells of each row
(`selections`); `SAGEMAKER_BATCH` always gives a line a row.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from clary.runtimes.contract import HandlerFailed, NotAcceptable
from clary.runtimes.frameworks.xgboost.selections import Score, Selection

ACCEPTED = ["application/json", "application/jsonlines", "application/x-recordio-protobuf", "text/csv"]
_CONTENT_TYPES = {
    "text/csv": "text/csv; charset=utf-8",
    "application/json": "application/json",
    "application/jsonlines": "application/jsonlines",
}


def content_type_of(kind: str) -> str:
    return _CONTENT_TYPES[kind]


class Answers:
    """How one instance answers: fixed by its environment when it starts."""

    def __init__(self, environment: Mapping[str, str], selection: Selection | None) -> None:
        self._default = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
        self._batch = bool(environment.get("SAGEMAKER_BATCH"))
        self._selection = selection
        self.is_plain = not self._batch and selection is None

    def kind_for(self, accept: str | None) -> str:
        """The form that an Accept header asks for. Raises `NotAcceptable`."""
        kind = (accept or "").partition(";")[0].strip()
        if not kind or kind == "*/*":
            kind = self._default
        if kind.lower() not in ACCEPTED:
            raise NotAcceptable(
                f"Accept type {kind} is not supported. Please use supported accept types: {ACCEPTED}."
            )
        if kind.lower() not in _CONTENT_TYPES:
            raise NotAcceptable(f"Accept type {kind} is not supported by this server.")
        return kind.lower()

    def encode(self, kind: str, scores: Sequence[Score]) -> bytes:
        if self._selection is not None:
            return self._encode_selected(self._selection, kind, scores)
        if self._batch:
            return _lines(map(str, scores))
        if kind == "application/json":
            # Row by row: one call for all would hold up other threads, and pings with them, for seconds.
            return f'{{"predictions": [{", ".join(map(_json_row, scores))}]}}'.encode()
        if kind == "application/jsonlines":
            return _lines(map(_json_row, scores))
        return _lines(map(_csv_row, scores))

    def _encode_selected(self, selection: Selection, kind: str, scores: Sequence[Score]) -> bytes:
        if selection.fault:
            raise HandlerFailed(selection.fault)
        chosen = [selection.of(score) for score in scores]
        if kind == "application/json":
            return json.dumps({"predictions": chosen}).encode()
        if kind == "application/jsonlines":
            return _lines(map(json.dumps, chosen))
        rows = "\n".join(",".join(_csv_field(row[key]) for key in selection.keys) for row in chosen)
        return (rows + "\n" if self._batch else rows).encode()


def _csv_row(score: Score) -> str:
    return ",".join(map(repr, score)) if isinstance(score, list) else repr(score)


def _json_row(score: Score) -> str:
    return json.dumps({"score": score})


def _csv_field(value: object) -> str:
    return f'"{value}"' if isinstance(value, list) else str(value)


def _lines(rows: Iterable[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode()
