"""transformers pipelines: opened on a folder of files, and called as the toolkit calls them.

transformers is imported when it is first needed: this module belongs to the zygote, which has it already.
"""

import importlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.huggingface import sources
from clary.runtimes.frameworks.huggingface.payloads import Sound
from clary.runtimes.frameworks.huggingface.tasks import TEXT_TO_TEXT, read_json, task_of

# An array alone, or with its rate.
_BARE_SOUND = ("zero-shot-audio-classification",)
_OF_VERSION_4 = ("question-answering", "image-to-text", "visual-question-answering", *TEXT_TO_TEXT)
_WORTH_THREADS = 2_000_000
_WARM = {
    "feature-extraction": "warm",
    "text-classification": "warm",
    "token-classification": "warm",
    "sentiment-analysis": "warm",
    "ner": "warm",
}

log = logging.getLogger(__name__)


def settle() -> None:
    """Before anything is loaded: nothing starts a thread."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # would leave a pool of threads behind
    importlib.import_module("tqdm").tqdm.monitor_interval = 0
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    importlib.import_module("torch").set_num_threads(1)


def spread(pipeline: Any, vcpus: int) -> None:
    """Gives a model its threads: one for each vCPU, unless it is so small that they would only wait for one another."""
    parameters = sum(each.numel() for each in pipeline.model.parameters())
    if parameters >= _WORTH_THREADS:
        threads = max(1, min(vcpus, len(os.sched_getaffinity(0))))
        importlib.import_module("torch").set_num_threads(threads)


def open_pipeline(model_dir: Path, environment: Mapping[str, str]) -> Any:
    """The pipeline of a model, ready to be called. Raises `LoadError`."""
    folder = sources.locate(model_dir, environment)
    task = task_of(folder, environment)
    transformers = importlib.import_module("transformers")
    log.info("loading a pipeline for %s with transformers %s", task, transformers.__version__)
    _check(task, transformers)
    try:
        opened = transformers.pipeline(
            task=task,
            model=str(folder),
            device=0 if importlib.import_module("torch").cuda.is_available() else -1,
            trust_remote_code=sources.trusts_remote_code(environment),
            **_tokenizer(folder, transformers),
        )
    except Exception as error:
        raise LoadError(
            f"transformers {transformers.__version__} cannot load the model for {task}: {type(error).__name__}: {error}"
        ) from error
    _warm_up(opened)
    return opened


def predict(data: Any, pipeline: Any) -> Any:
    """What a pipeline says to a decoded request. Raises whatever it raises."""
    if not isinstance(data, dict):
        raise TypeError(
            f'give a JSON object with "inputs", and "parameters" if you like, not a {_kind(data)}'
        )
    inputs = data["inputs"] if "inputs" in data else {k: v for k, v in data.items() if k != "parameters"}
    parameters = data.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise TypeError(f'"parameters" must be a JSON object, not a {_kind(parameters)}')
    if isinstance(inputs, Sound):
        inputs = _heard(inputs, pipeline)
    return pipeline(inputs, **parameters)


def _check(task: str, transformers: Any) -> None:
    """Raises `LoadError` for a task that this version does not have."""
    known = transformers.pipelines.PIPELINE_REGISTRY
    if task in known.get_supported_tasks() or task.startswith("translation_"):
        return
    if task.startswith(_OF_VERSION_4):
        raise LoadError(
            f"the task {task} left transformers with version 5: set HF_TASK={task} in the model's Environment, "
            "which makes an environment with version 4 answer"
        )
    raise LoadError(
        f"HF_TASK is {task}, which transformers {transformers.__version__} has no pipeline for; it has "
        f"{', '.join(known.get_supported_tasks())}. Anything else needs an inference.py"
    )


def _tokenizer(folder: Path, transformers: Any) -> dict[str, Any]:
    """What version 5 saved under a name of its own, version 4 reads as what it is."""
    config = folder / "tokenizer_config.json"
    if hasattr(transformers, "TokenizersBackend") or not config.is_file():
        return {}
    if read_json(config).get("tokenizer_class") != "TokenizersBackend":
        return {}
    return {"tokenizer": transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))}


def _warm_up(pipeline: Any) -> None:
    """The first call sets things up that later ones find; for tasks whose inputs are a text."""
    if (text := _WARM.get(pipeline.task)) is None:
        return
    try:
        pipeline(text)
    except Exception:
        log.warning("the first call failed, requests may too", exc_info=True)


def _heard(sound: Sound, pipeline: Any) -> Any:
    """A recording as one channel, at the rate that the model was trained with. WAV is read here; for anything else the
    pipeline asks ffmpeg, where the system has it.
    """
    if not sound.startswith(b"RIFF"):
        return bytes(sound)
    rate, samples = importlib.import_module("scipy.io.wavfile").read(io.BytesIO(sound))
    samples = _as_floats(samples)
    wanted = int(getattr(getattr(pipeline, "feature_extractor", None), "sampling_rate", rate))
    if rate != wanted:
        samples, rate = importlib.import_module("scipy.signal").resample_poly(samples, wanted, rate), wanted
    samples = samples.astype("float32")
    return samples if pipeline.task in _BARE_SOUND else {"raw": samples, "sampling_rate": rate}


def _as_floats(samples: Any) -> Any:
    """From -1 to 1, whatever the file counts in; several channels as their mean."""
    kind = samples.dtype
    values = samples.astype("float64")
    if kind.kind == "u":
        values = values / 128 - 1
    elif kind.kind == "i":
        values /= 1 << (8 * kind.itemsize - 1)
    return values.mean(axis=1) if values.ndim > 1 else values


def _kind(value: Any) -> str:
    return {"list": "list", "str": "string", "ndarray": "bare array"}.get(type(value).__name__, "bare value")
