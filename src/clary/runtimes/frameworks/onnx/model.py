"""ONNX graphs on ONNX Runtime, without a script or with one.

Without a script the archive has one graph in its root (`model.onnx` where there are several), and requests that wait
are one call of it when their rows can be put one after the other: every input's first dimension is open, and a trial
at the start showed that rows predicted together give what they give alone (`joining`).

With a script its `model_fn` may be left out (the session of that graph), and so may the rest: JSON, CSV or npy of the
only input, or an object of several, and the outputs as they come.
"""

import importlib
import logging
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
from clary.runtimes.frameworks.onnx import answers, graphs, payloads
from clary.runtimes.frameworks.onnx.graphs import Graph
from clary.runtimes.frameworks.onnx.inputs import input_of
from clary.runtimes.frameworks.onnx.joining import Joiner
from clary.runtimes.frameworks.onnx.payloads import Asked
from clary.runtimes.handler import Defaults, find_script
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES, serve_script
from clary.runtimes.workers import ScriptedModel

PREFERRED = "model.onnx"

log = logging.getLogger(__name__)


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> "OnnxModel | ScriptedModel":
    script = find_script(model_dir, environment)
    if script is not None:
        return serve_script(script, model_dir, environment, vcpus, DEFAULTS)
    path = graph_in(model_dir)
    log.info("loading %s, %d bytes, with ONNX Runtime %s", path.name, path.stat().st_size, graphs.version())
    graph = Graph(path, vcpus)
    log.info(
        "%s takes %s and gives %s", path.name, ", ".join(map(str, graph.inputs)), ", ".join(graph.outputs)
    )
    default = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or payloads.JSON
    return OnnxModel(graph, answers.kind_for(default, payloads.JSON))


def graph_in(model_dir: Path) -> Path:
    """The graph to serve. Raises `LoadError`."""
    found = sorted(path for path in model_dir.glob("*.onnx") if path.is_file())
    if not found:
        names = ", ".join(sorted(path.name for path in model_dir.iterdir())[:5])
        raise LoadError(
            f"the model archive has no .onnx file in its root{names and f' beside {names}'}: "
            "put the graph there, such as model.onnx"
        )
    preferred = [path for path in found if path.name == PREFERRED]
    if len(found) > 1 and not preferred:
        names = ", ".join(path.name for path in found[:5])
        raise LoadError(f"the model archive has several graphs, {names}: call the one to serve {PREFERRED}")
    return (preferred or found)[0]


class OnnxModel:
    """See `contract.Model`."""

    def __init__(self, graph: Graph, default_accept: str) -> None:
        self._graph = graph
        self._joiner = Joiner(graph)
        self._default_accept = default_accept

    @property
    def limits(self) -> Limits:
        return Limits(LARGEST_PAYLOAD_BYTES)

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        read = [self._read(request) for request in batch]
        asked = [each[0] for each in read if isinstance(each, tuple)]
        given = iter(self._joiner.run([each.arrays for each in asked]))
        return [
            self._respond(*each, next(given)) if isinstance(each, tuple) else each.response() for each in read
        ]

    def _read(self, request: InvocationRequest) -> tuple[Asked, str] | InvocationError:
        """The request's arrays and the form of its answer, or what is wrong with it."""
        head, body = request
        try:
            kind = answers.kind_for(head.accept, self._default_accept)
            asked = payloads.reader_for(head.content_type)(body, self._graph.inputs)
            payloads.check_outputs(asked, self._graph.outputs)
        except InvocationError as error:
            return error
        return asked, kind

    def _respond(self, asked: Asked, kind: str, given: list[Any] | InvocationError) -> InvocationResponse:
        if isinstance(given, InvocationError):
            return given.response()
        named = dict(zip(self._graph.outputs, given, strict=True))
        names = asked.wanted or self._graph.outputs
        try:
            return answers.answer(kind, asked, names, [named[name] for name in names])
        except InvocationError as error:
            return error.response()


def _model_fn(model_dir: str) -> Any:
    """One thread: there are as many workers as vCPUs."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(graph_in(Path(model_dir)))
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _input_fn(data: str | bytes, content_type: str) -> Any:
    if encoding.plain(content_type) != encoding.JSON:
        return encoding.decode(data, content_type)
    return importlib.import_module("json").loads(data)


def _predict_fn(data: Any, session: Any) -> Any:
    inputs = [input_of(each) for each in session.get_inputs()]
    given = data if isinstance(data, dict) else {inputs[0].name: data}
    arrays = {each.name: payloads.fitted(given[each.name], each) for each in inputs if each.name in given}
    outputs = session.run(None, arrays)
    if len(outputs) == 1:
        return outputs[0]
    return {found.name: output for found, output in zip(session.get_outputs(), outputs, strict=True)}


DEFAULTS = Defaults("ONNX Runtime", _predict_fn, model_fn=_model_fn, input_fn=_input_fn)
