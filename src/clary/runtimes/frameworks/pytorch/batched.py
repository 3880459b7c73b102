"""Answers what waits in one call of the model, where that gives what single calls give.

Nothing says of a model whether its rows depend on each other. So it is tried: for each shape of input the first joined
calls are made both ways and compared, and while that lasts the single answers are the ones given. One difference, one
failure, one output that cannot be taken apart, and inputs of this shape are never joined again; a sample of later calls
is compared too. "Equal" is up to rounding, since a matrix product adds up in another order for another number of rows.

JSON and CSV of plain rows go from text to one buffer without an array for each request: that is most of the time of a
small model. What does not look like plain rows takes the toolkit's way, and so do its complaints.
"""

import json
import logging
import struct
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import thread_time
from typing import Any, NamedTuple

import torch

from clary.runtimes import encoding
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, Limits
from clary.runtimes.frameworks.pytorch.handlers import chosen_kind, evaluating, input_fn
from clary.runtimes.frameworks.pytorch.threads import Widening
from clary.runtimes.handler import failure

PROOFS = 4
CHECK_EVERY = 256
RELATIVE, ABSOLUTE = 1e-4, 1e-6
_MOST_PLANS = 256
_MOST_SHAPES = 256
_SINGLE = ("single",)

log = logging.getLogger(__name__)


class Input(NamedTuple):
    """One request's input. `key`: those of the same one may be joined. A buffer of floats, or a tensor."""

    key: Hashable
    values: Any
    rows: int


class Plan(NamedTuple):
    """What requests with certain headers want: worked out once for each combination."""

    read: Callable[[bytes], Input]
    kind: str
    write: Callable[[Any], bytes]


@dataclass(slots=True)
class _Trust:
    """Whether inputs of a key may be joined. Races between threads cost a comparison at most."""

    proofs: int = 0
    calls: int = 0
    refused: bool = False

    def wants_proof(self) -> bool:
        self.calls += 1
        return self.proofs < PROOFS or self.calls % CHECK_EVERY == 0


class BatchedModel:
    """See `contract.Model`."""

    def __init__(self, model: Callable[[Any], Any], accept: str, limits: Limits, threads: int = 1) -> None:
        self.limits = limits
        self._model = evaluating(model)
        self._accept = accept
        self._widening = Widening(threads)
        self._plans: dict[tuple[str | None, str | None], Plan] = {}
        self._trust: dict[Hashable, _Trust] = {}

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        if len(batch) == 1:
            return [self._answer_one(batch[0])]
        answers: list[InvocationResponse | None] = [None] * len(batch)
        groups: dict[Hashable, list[tuple[int, Plan, Input]]] = {}
        for place, request in enumerate(batch):
            try:
                plan = self._plan_of(request.head)
                given = plan.read(request.body)
            except Exception as error:  # noqa: BLE001  as for a script: whatever it is, this request is answered
                answers[place] = failure(error)
            else:
                groups.setdefault(given.key, []).append((place, plan, given))
        for key, group in groups.items():
            outputs = self._outputs(key, [given for _, _, given in group])
            for (place, plan, _), output in zip(group, outputs, strict=True):
                answers[place] = _written(plan, output)
        return [answer for answer in answers if answer is not None]

    def _answer_one(self, request: InvocationRequest) -> InvocationResponse:
        try:
            plan = self._plan_of(request.head)
            return _written(plan, _plain(self._run(_tensor(plan.read(request.body)))))
        except Exception as error:  # noqa: BLE001
            return failure(error)

    def _plan_of(self, head: InvocationHead) -> Plan:
        return self._plans.get((head.content_type, head.accept)) or self._make_plan(head)

    def _make_plan(self, head: InvocationHead) -> Plan:
        accept = self._accept if head.accept in (None, "", "*/*") else str(head.accept)
        content_type = head.content_type or encoding.JSON
        kind = chosen_kind(accept)
        plan = Plan(_reader_for(content_type), kind, _WRITERS[kind])
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[head.content_type, head.accept] = plan
        return plan

    def _run(self, tensor: Any) -> Any:
        began = thread_time()
        with torch.no_grad():
            output = self._model(tensor)
        self._widening.took(thread_time() - began)
        return output

    def _outputs(self, key: Hashable, group: Sequence[Input]) -> list[Any]:
        """For each input what it gives, as plain lists where that is a tensor, or the exception."""
        if len(group) == 1 or key == _SINGLE:
            return [_plain(output) for output in self._singly(group)]
        trust = self._trust.get(key)
        if trust is None:
            if len(self._trust) >= _MOST_SHAPES:
                self._trust.clear()
            trust = self._trust.setdefault(key, _Trust())
        if trust.refused:
            return [_plain(output) for output in self._singly(group)]
        try:
            joined = self._run(_joined(group))
            parts = _taken_apart(joined, group)
        except Exception as error:  # noqa: BLE001  one input of the group, or the joining: the single calls tell
            return self._settle(trust, key, self._singly(group), f"{type(error).__name__}: {error}")
        if trust.wants_proof():
            return self._compare(trust, key, self._singly(group), parts)
        return _lists_of(joined, group)

    def _singly(self, group: Sequence[Input]) -> list[Any]:
        outputs: list[Any] = []
        for given in group:
            try:
                outputs.append(self._run(_tensor(given)))
            except Exception as error:  # noqa: BLE001
                outputs.append(error)
        return outputs

    def _compare(self, trust: _Trust, key: Hashable, single: list[Any], parts: list[Any]) -> list[Any]:
        if all(_are_equal(one, part) for one, part in zip(single, parts, strict=True)):
            trust.proofs += any(map(_says_something, single))
            return [_plain(output) for output in single]
        return self._settle(trust, key, single, "answers differ from those of single calls")

    def _settle(self, trust: _Trust, key: Hashable, single: list[Any], why: str) -> list[Any]:
        """An input that fails by itself says nothing about joining."""
        if not any(isinstance(output, Exception) for output in single):
            trust.refused = True
            log.info("requests of the form %s are answered one by one: %s", key, " ".join(why.split())[:300])
        return [_plain(output) for output in single]


def _reader_for(content_type: str) -> Callable[[bytes], Input]:
    kind = encoding.plain(content_type)
    if kind == encoding.JSON:
        return _read_json
    if kind == encoding.CSV:
        return _read_csv
    return lambda body: _of_tensor(input_fn(bytes(body), content_type))


def _read_json(body: bytes) -> Input:
    text = str(body, "utf-8")
    found = json.loads(text)
    try:
        if type(found) is list and found:
            first = found[0]
            if type(first) is list:
                return _rows(found, len(first))
            return _row(found)
    except (struct.error, TypeError, OverflowError):
        pass  # numbers in deeper lists, or no numbers: the toolkit's way has words for it
    return _of_tensor(input_fn(text, encoding.JSON))


def _read_csv(body: bytes) -> Input:
    """One line is one row without a dimension for rows, as numpy's `genfromtxt` has it."""
    text = str(body, "utf-8")
    try:
        found = [list(map(float, line.split(","))) for line in text.splitlines() if line]
        if found and len(found[0]) > 1:
            return _row(found[0]) if len(found) == 1 else _rows(found, len(found[0]))
    except (ValueError, struct.error, TypeError, OverflowError):
        pass  # missing values, words, comments
    return _of_tensor(input_fn(text, encoding.CSV))


def _row(found: Sequence[Any]) -> Input:
    return Input(("row", len(found)), _packer(len(found))(*found), 1)


def _rows(found: Sequence[Any], width: int) -> Input:
    """Raises `TypeError` or `struct.error` for what is no table of numbers."""
    if not width or set(map(type, found)) != {list}:
        raise TypeError
    pack = _packer(width)
    return Input(("rows", width), b"".join([pack(*row) for row in found]), len(found))


@lru_cache(64)
def _packer(width: int) -> Callable[..., bytes]:
    """float32 of so many numbers: much faster than an array that takes them one by one."""
    return struct.Struct(f"{width}f").pack


def _of_tensor(tensor: Any) -> Input:
    if not isinstance(tensor, torch.Tensor) or not tensor.dim():
        return Input(_SINGLE, tensor, 0)
    if tensor.dim() == 1:
        return Input(("row", tensor.dtype, tuple(tensor.shape)), tensor, 1)
    return Input(("rows", tensor.dtype, tuple(tensor.shape[1:])), tensor, tensor.shape[0])


def _tensor(given: Input) -> Any:
    return _of_floats([given]) if isinstance(given.values, bytes) else given.values


def _joined(group: Sequence[Input]) -> Any:
    """All rows, below each other."""
    values = [each.values for each in group]
    if not isinstance(values[0], bytes):
        return torch.stack(values) if _is_row(group[0]) else torch.cat(values)
    rows = sum([each.rows for each in group])
    return _of_floats(group).view(rows, -1)


def _of_floats(group: Sequence[Input]) -> Any:
    tensor = torch.frombuffer(bytearray().join([each.values for each in group]), dtype=torch.float32)
    return tensor if _is_row(group[0]) else tensor.view(sum([each.rows for each in group]), -1)


def _is_row(given: Input) -> bool:
    return isinstance(given.key, tuple) and given.key[0] == "row"


def _taken_apart(joined: Any, group: Sequence[Input]) -> list[Any]:
    """Raises `TypeError` for what has not one row for each row that went in."""
    total = sum(each.rows for each in group)
    if not isinstance(joined, torch.Tensor) or not joined.dim() or joined.shape[0] != total:
        raise TypeError("the output has not one row for each row of the input")
    return _slices(joined, group)


def _lists_of(joined: Any, group: Sequence[Input]) -> list[Any]:
    return _slices(joined.tolist(), group)


def _slices(rows: Any, group: Sequence[Input]) -> list[Any]:
    if _is_row(group[0]):
        return [rows[place] for place in range(len(group))]
    parts, start = [], 0
    for each in group:
        parts.append(rows[start : start + each.rows])
        start += each.rows
    return parts


def _are_equal(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.dtype.is_floating_point:
        return bool(torch.equal(one, other))
    if one.numel() == 0:
        return True
    # Where values cancel out what is left may be rounding alone: small against the largest of them.
    scale = max(float(one.abs().nan_to_num(posinf=0).max()), ABSOLUTE)
    return bool(torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE * scale, equal_nan=True))


def _says_something(output: Any) -> bool:
    """What is never a number equals itself whatever the model does."""
    return bool(torch.isfinite(output).any())


def _plain(output: Any) -> Any:
    return output.tolist() if isinstance(output, torch.Tensor) else output


def _written(plan: Plan, output: Any) -> InvocationResponse:
    if isinstance(output, Exception):
        return failure(output)
    try:
        return InvocationResponse(200, plan.kind, plan.write(output))
    except Exception as error:  # noqa: BLE001
        return failure(error)


def _write_json(values: Any) -> bytes:
    return encoding.to_json(values).encode()


def _write_csv(values: Any) -> bytes:
    """What numpy's `savetxt` writes of one or two dimensions, without the array for it."""
    if type(values) is list and values:
        kinds = {type(value) for value in values}
        if kinds <= _NUMBERS:
            return ("\n".join(map(str, values)) + "\n").encode()
        if kinds == {list} and {type(value) for row in values for value in row} <= _NUMBERS:
            return "".join([",".join(map(str, row)) + "\n" for row in values]).encode()
    return _write(encoding.CSV, values)


def _write_npy(values: Any) -> bytes:
    return _write(encoding.NPY, values)


def _write(kind: str, values: Any) -> bytes:
    body = encoding.encode(values, kind)
    return body.encode() if isinstance(body, str) else body


_NUMBERS = {int, float, bool}
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    encoding.JSON: _write_json,
    encoding.CSV: _write_csv,
    encoding.NPY: _write_npy,
}
