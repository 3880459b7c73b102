"""A graph and the little that serving needs of it: what goes in, what comes out, and running it.

ONNX Runtime's own threads cost a small graph more than they give, so it begins with none: the model server calls it
from several threads instead. One call is tried out when the graph is loaded, and a graph that takes long for it is
loaded again with a thread for each vCPU.

Since 1.29 the library tells its makers of its use, by a thread that begins when it is imported. Nobody asked for
that here: it is switched off before the import, which also leaves the zygote without a thread.
"""

import importlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clary.runtimes.contract import BadRequest, LoadError
from clary.runtimes.frameworks.onnx.inputs import Input, input_of

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
onnxruntime: Any = importlib.import_module("onnxruntime")

SLOW_S = 0.005
"""A call that takes longer than this is worth threads of its own."""

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

log = logging.getLogger(__name__)


class Graph:
    """See above. `run` may be called from several threads at once."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._session = _session(path, 1)
        self.inputs = tuple(input_of(each) for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())
        self._run: Callable[..., list[Any]] = self._session.run
        if threads > 1 and self._is_slow():
            log.info("%s takes long for a call: it gets %d threads", path.name, threads)
            self._session = _session(path, threads)
            self._run = self._session.run

    def run(self, arrays: Arrays, outputs: Sequence[str] | None = None) -> list[Any]:
        """All outputs, or those named, in order. Raises `BadRequest` with the library's words."""
        try:
            return self._run(outputs, arrays)
        except Exception as error:
            # The library has a class for each kind of trouble, all of them made of C++'s and of no family.
            raise BadRequest(f"{self._path.name} cannot evaluate this: {first_line(error)}") from error

    def example(self, rows: int, random: "np.random.Generator") -> Arrays:
        """Made-up inputs, with 1 for every open dimension but the first."""
        return {each.name: _made_up(each, rows, random) for each in self.inputs}

    def _is_slow(self) -> bool:
        example = self.example(1, np.random.default_rng(0))
        try:
            self.run(example)  # the first call makes what later ones use
            began = time.perf_counter()
            self.run(example)
        except BadRequest:
            return False
        return time.perf_counter() - began > SLOW_S


def version() -> str:
    return str(onnxruntime.__version__)


def first_line(error: Exception) -> str:
    """What the library says, without the places in its source and the nodes of the graph below."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that waits for work would take the processor from the event loop and from neighbours.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise LoadError(f"ONNX Runtime {version()} cannot load {path.name}: {first_line(error)}") from error


def _made_up(each: Input, rows: int, random: "np.random.Generator") -> "np.ndarray[Any, Any]":
    sizes = list(each.shape or ())
    shape = [rows if number == 0 and size is None else size or 1 for number, size in enumerate(sizes)]
    if each.dtype.kind == "f":
        return random.standard_normal(shape).astype(each.dtype)
    numbers = random.integers(0, 2, shape)  # small: they may be places in a table
    return numbers.astype(str).astype(object) if each.dtype.kind == "O" else numbers.astype(each.dtype)
