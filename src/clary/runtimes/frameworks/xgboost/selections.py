"""`SAGEMAKER_INFERENCE_OUTPUT`: what of a prediction to tell, for which objective.

The rules, the names and the words are the built-in algorithm's: what an objective cannot give is NaN, and an
objective it does not know is an error at each request.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Score = float | list[float]
"""Of one row: a number, or one for each class or target."""

Chosen = float | int | list[int] | list[float]

_NAN = float("nan")
_SCORED = frozenset({"predicted_score"})
_RAW = frozenset({"predicted_label", "labels", "raw_score", "raw_scores"})
_PROBABLE = _RAW | {"probability", "probabilities"}
_KEYS_OF: dict[str, frozenset[str]] = {
    "reg:squarederror": _SCORED,
    "reg:logistic": _SCORED,
    "reg:gamma": _SCORED,
    "reg:absoluteerror": _SCORED,
    "reg:tweedie": _SCORED,
    "binary:logistic": _PROBABLE,
    "binary:logitraw": _RAW,
    "binary:hinge": _RAW,
    "multi:softmax": _RAW,
    "multi:softprob": _PROBABLE,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen keys for a model with a certain objective."""

    keys: tuple[str, ...]
    objective: str
    classes: int
    fault: str = ""

    def of(self, score: Score) -> dict[str, Chosen]:
        valid = _KEYS_OF[self.objective]
        return {key: _RULES[key](self, score) if key in valid else _NAN for key in self.keys}


def select(wanted: str, objective: str, classes: int) -> Selection:
    """The selection that the variable's text asks for."""
    keys = tuple(dict.fromkeys(wanted.replace(" ", "").lower().split(",")))
    if objective not in _KEYS_OF:
        fault = f"Objective `{objective}` unsupported for selectable inference predictions."
        return Selection(keys, objective, classes, fault)
    if unfit := sorted(set(keys) - _KEYS_OF[objective]):
        log.warning(
            "selected keys do not fit the objective and will be NaN: %s %s", objective, ", ".join(unfit)
        )
    return Selection(keys, objective, classes)


def _label(selection: Selection, score: Score) -> Chosen:
    if isinstance(score, list):
        return max(range(len(score)), key=score.__getitem__)
    if selection.objective == "binary:logistic":
        return int(score > 0.5)
    if selection.objective == "binary:logitraw":
        return int(score > 0)
    return score


def _labels(selection: Selection, score: Score) -> Chosen:
    return [0, 1] if selection.objective.startswith("binary:") else list(range(selection.classes))


def _winning(selection: Selection, score: Score) -> Chosen:
    return max(score) if isinstance(score, list) else score


def _each(selection: Selection, score: Score) -> Chosen:
    return list(score) if isinstance(score, Sequence) else [1.0 - score, score]


_RULES: dict[str, Callable[[Selection, Score], Chosen]] = {
    "predicted_label": _label,
    "labels": _labels,
    "probability": _winning,
    "probabilities": _each,
    "raw_score": _winning,
    "raw_scores": _each,
    "predicted_score": _winning,
}
