"""Several requests in one call of the graph: their rows one after the other, and what comes out cut up again.

That is right for a graph that looks at each row by itself. Most do, and some do not (a softmax over the wrong axis, a
mean over the batch), which no declaration tells. So it is tried out once, with made-up rows: what they give together
must be what each gives alone, numbers to `CLOSE` of the largest, since the library adds up in another order for another
number of rows. Where it is not, where there is no number to compare, or where a dimension is fixed, every request is a
call of its own.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from clary.runtimes.contract import BadRequest, InvocationError
from clary.runtimes.frameworks.onnx.inputs import Input

CLOSE = 1e-5
TRIED_ROWS = 5
MOST_ROWS = 4096

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Outcome = list[Any] | InvocationError
"""A request's outputs, or why there are none."""

log = logging.getLogger(__name__)


class Graph(Protocol):
    """As much of `graphs.Graph` as this takes."""

    @property
    def inputs(self) -> Sequence[Input]: ...

    def run(self, arrays: Arrays) -> list[Any]:
        """Raises `BadRequest`."""

    def example(self, rows: int, random: "np.random.Generator") -> Arrays:
        """Made-up inputs of so many rows."""


class Joiner:
    """`run` may be called from several threads at once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        against = _against(graph)
        self.joins = not against
        if against:
            log.info("every request is a call of the graph: %s", against)
        else:
            log.info(
                "requests that wait are predicted together: %d rows gave together what they give alone, to %g of the "
                "largest",
                TRIED_ROWS,
                CLOSE,
            )

    def run(self, requests: Sequence[Arrays]) -> list[Outcome]:
        """One outcome for each request, in their order."""
        if len(requests) == 1 or not self.joins:
            return [self._alone(arrays) for arrays in requests]
        outcomes: dict[int, Outcome] = {}
        for members in _alike(requests):
            found = self._together([requests[number] for number in members])
            outcomes.update(zip(members, found, strict=True))
        return [outcomes[number] for number in range(len(requests))]

    def _alone(self, arrays: Arrays) -> Outcome:
        try:
            return self._graph.run(arrays)
        except BadRequest as error:
            return error

    def _together(self, requests: Sequence[Arrays]) -> list[Outcome]:
        if len(requests) == 1:
            return [self._alone(requests[0])]
        try:
            return [*together(self._graph, requests)]
        except (BadRequest, Unsplittable):  # one of them spoils it, or the rows were not what they seemed
            return [self._alone(arrays) for arrays in requests]


class Unsplittable(Exception):
    """An output does not have a row for each row that went in."""


def together(graph: Graph, requests: Sequence[Arrays]) -> list[list[Any]]:
    """The outputs of each request, out of one call. Raises `BadRequest`, `Unsplittable`."""
    joined = {name: np.concatenate([each[name] for each in requests]) for name in requests[0]}
    counts = [len(next(iter(each.values()))) for each in requests]
    outputs = graph.run(joined)
    if any(not hasattr(output, "__len__") or len(output) != sum(counts) for output in outputs):
        raise Unsplittable
    ends = np.cumsum(counts).tolist()
    return [
        [output[end - count : end] for output in outputs] for end, count in zip(ends, counts, strict=True)
    ]


def _alike(requests: Sequence[Arrays]) -> list[list[int]]:
    """The places of requests whose rows have the same shape, in groups of not too many rows."""
    groups: dict[object, list[list[int]]] = {}
    rows: dict[object, int] = {}
    for number, arrays in enumerate(requests):
        counts = {len(array) for array in arrays.values()}
        shape = tuple((name, array.shape[1:]) for name, array in arrays.items())
        key = shape if len(counts) == 1 else (number, shape)  # uneven inputs: a call of its own
        count = max(counts)
        if key not in groups or rows[key] + count > MOST_ROWS:
            groups.setdefault(key, []).append([])
            rows[key] = 0
        groups[key][-1].append(number)
        rows[key] += count
    return [members for several in groups.values() for members in several]


def _against(graph: Graph) -> str:
    """Why rows of several requests cannot be put together; empty when they can."""
    if fixed := [str(each) for each in graph.inputs if not each.is_open]:
        return f"{', '.join(fixed)} has no open first dimension"
    if not graph.inputs:
        return "it has no inputs"
    random = np.random.default_rng(1)
    rows = [graph.example(1, random) for _ in range(TRIED_ROWS)]
    try:
        joined = together(graph, rows)
        alone = [graph.run(row) for row in rows]
    except BadRequest as error:
        return f"it could not be tried out: {error}"
    except Unsplittable:
        return "an output does not have a row for each row that goes in"
    if not all(map(_equal, (v for each in joined for v in each), (v for each in alone for v in each))):
        return "rows give something else together than alone"
    if not all(any(map(_says_something, outputs)) for outputs in zip(*alone, strict=True)):
        return "what it gives for made-up rows is no number, which tells nothing of others"
    return ""


def _says_something(output: Any) -> bool:
    array = np.asarray(output)
    return array.dtype.kind != "f" or bool(np.isfinite(array).any())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    left, right = np.asarray(one), np.asarray(other)
    if left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return bool((left == right).all())
    size = np.max(np.abs(right), initial=0, where=np.isfinite(right))
    with np.errstate(invalid="ignore"):  # of two infinities
        return bool(
            np.all(
                (np.abs(left - right) <= CLOSE * size) | (left == right) | (np.isnan(left) & np.isnan(right))
            )
        )
