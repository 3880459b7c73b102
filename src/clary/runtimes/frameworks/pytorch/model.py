"""The PyTorch container's serving side: a script's handlers, a TorchServe archive, or a model file by itself.

A model without any code of the user's answers in the model server's own process, with what waits answered together
(`batched`). Scripts and TorchServe's handlers run in workers. Only the build for CPUs is served: a GPU of the machine
is left alone, and `torch.cuda.is_available()` says False.

Threads: a prediction that takes its time may use as many as the instance has vCPUs; workers share them out.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from clary.runtimes.contract import Limits, Model, Scripted
from clary.runtimes.encoding import JSON
from clary.runtimes.frameworks.pytorch import torchserve
from clary.runtimes.frameworks.pytorch.artefacts import load_model
from clary.runtimes.frameworks.pytorch.batched import BatchedModel
from clary.runtimes.frameworks.pytorch.handlers import input_fn, output_fn, predict_fn
from clary.runtimes.frameworks.pytorch.threads import available, use_threads
from clary.runtimes.handler import Defaults, find_script
from clary.runtimes.scripts import payload_limit, serve_script
from clary.runtimes.workers import settings_of


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> Model | Scripted:
    """Raises `LoadError`."""
    script = find_script(model_dir, environment)
    if script is not None:
        count, _ = settings_of(environment, vcpus)
        defaults = replace(DEFAULTS, begin=partial(use_threads, available(vcpus) // count))
        return serve_script(script, model_dir, environment, vcpus, defaults)
    if (archive := torchserve.find_archive(model_dir)) is not None:
        settings = torchserve.settings_for(archive, environment, vcpus)
        return torchserve.serve(archive, settings, available(vcpus) // settings.workers)
    accept = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or JSON
    limits = Limits(payload_limit(environment), "SINGLE_RECORD", concurrency=1)
    return BatchedModel(load_model(model_dir), accept, limits, available(vcpus))


DEFAULTS = Defaults(
    "PyTorch",
    predict_fn,
    model_fn=load_model,
    input_fn=input_fn,
    output_fn=output_fn,
    together=BatchedModel,
)
