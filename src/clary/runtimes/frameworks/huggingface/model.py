"""The Hugging Face container's serving side: a transformers pipeline, or a script's handlers around one.

Without a script the pipeline runs in this process, one call at a time: the tokenizers are not made for several threads,
and torch spreads a large call over the vCPUs. Each request is a call of its own. Requests that wait are not put
together: pipelines pad them to the longest, which changes their numbers. A request's own list is one call, and its
`parameters` may set a `batch_size`. Code that comes with a model (`HF_TRUST_REMOTE_CODE`) runs in a worker, like a
script.

Status, words and forms are the toolkit's: whatever goes wrong is 400.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clary.runtimes.contract import InvocationRequest, InvocationResponse, Limits, Model
from clary.runtimes.encoding import JSON
from clary.runtimes.frameworks.huggingface import payloads, pipelines, sources
from clary.runtimes.handler import Defaults, default_accept, find_script
from clary.runtimes.scripts import payload_limit, serve_script
from clary.runtimes.workers import ScriptedModel, settings_of

log = logging.getLogger(__name__)


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> Model | ScriptedModel:
    script = find_script(model_dir, environment)
    if script is not None:
        return serve_script(script, model_dir, environment, vcpus, DEFAULTS)
    limits = Limits(payload_limit(environment), concurrency=1)
    if not sources.trusts_remote_code(environment):
        return _open(model_dir, environment, vcpus, limits)
    count, timeout_s = settings_of({"SAGEMAKER_MODEL_SERVER_WORKERS": "1", **environment}, vcpus)
    return ScriptedModel(partial(_open, model_dir, environment, vcpus, limits), count, timeout_s, limits)


def _open(model_dir: Path, environment: Mapping[str, str], vcpus: int, limits: Limits) -> "PipelineModel":
    pipelines.settle()
    opened = pipelines.open_pipeline(model_dir, environment)
    pipelines.spread(opened, vcpus)
    return PipelineModel(opened, default_accept(), limits)


class PipelineModel:
    """A pipeline that answers requests. See `contract.Model`, and `handler.Answers` for where it is a worker's."""

    def __init__(self, pipeline: Any, accept: str, limits: Limits) -> None:
        self.limits = limits
        self._pipeline = pipeline
        self._accept = accept
        self._lock = threading.Lock()

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        with self._lock:
            return [self.answer(request) for request in batch]

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        accept = request.head.accept
        wanted = self._accept if accept in (None, "", "*/*") else str(accept)
        try:
            # The body may be a view of the connection's buffer.
            data = payloads.decode(bytes(request.body), request.head.content_type or JSON)
            body = payloads.encode(pipelines.predict(data, self._pipeline), wanted)
        except Exception as error:  # the toolkit's word for all of them is 400
            log.warning("invocation failed: %s: %s", type(error).__name__, error, exc_info=error)
            return payloads.refusal(error)
        return InvocationResponse(200, wanted, body.encode() if isinstance(body, str) else body)


def _model_fn(model_dir: str) -> Any:
    return pipelines.open_pipeline(Path(model_dir), os.environ)


DEFAULTS = Defaults(
    "Hugging Face",
    pipelines.predict,
    model_fn=_model_fn,
    input_fn=payloads.decode,
    output_fn=payloads.encode,
    begin=pipelines.settle,  # one thread each: there are as many workers as vCPUs
    failure=payloads.refusal,
)
