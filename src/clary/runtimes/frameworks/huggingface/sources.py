"""Where a model's files are: in the archive, in a folder of it, or on a hub that they are fetched from first.

`HF_MODEL_ID` goes before what the archive holds, as in the AWS toolkit. It names a model of the hub, or a folder: by
its place (`/opt/ml/model/…`) or by its name in the archive. What is fetched goes to a cache of the instance's own.
"""

import fnmatch
import importlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from clary.runtimes.contract import LoadError

_MOST_NAMES = 5
_OTHER_WEIGHTS = (
    "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.mlmodel", "*.tflite", "*.tar.gz", "*.ckpt", "*.gguf",
    "openvino/*", "onnx/*", "coreml/*", "original/*", "flax_model*", "tf_model*",
)  # fmt: skip
_PICKLED = "*.bin"

log = logging.getLogger(__name__)


def locate(model_dir: Path, environment: Mapping[str, str]) -> Path:
    """The folder with config.json. Raises `LoadError`."""
    wanted = environment.get("HF_MODEL_ID", "")
    if not wanted:
        return _checked(model_dir, "the model archive")
    folder = Path(wanted) if wanted.startswith("/") else model_dir / wanted
    if folder.is_dir() and folder.resolve().is_relative_to(model_dir.resolve()):
        return _checked(folder, f"HF_MODEL_ID is {wanted}, and that folder")
    if wanted.startswith((".", "/")):
        raise LoadError(f"HF_MODEL_ID is {wanted}, and there is no such folder in the model archive")
    return _fetched(wanted, environment)


def trusts_remote_code(environment: Mapping[str, str]) -> bool:
    """Whether code that comes with the model may run."""
    return environment.get("HF_TRUST_REMOTE_CODE", "").lower() in ("1", "true", "yes", "on", "y", "t")


def _checked(folder: Path, what: str) -> Path:
    if (folder / "config.json").is_file():
        return folder
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    beside = f" beside {', '.join(names[:_MOST_NAMES])}" if names else ""
    raise LoadError(
        f"{what} has no config.json{beside}: pack the files that save_pretrained wrote (model and tokenizer) at the "
        "root of the archive, write an inference.py with model_fn, or set HF_MODEL_ID"
    )


def _fetched(name: str, environment: Mapping[str, str]) -> Path:
    hub = importlib.import_module("huggingface_hub")
    revision = environment.get("HF_MODEL_REVISION") or None
    token = environment.get("HF_API_TOKEN") or environment.get("HF_TOKEN") or None
    cache = Path(
        environment.get("HF_HOME") or Path(os.environ.get("TMPDIR") or tempfile.gettempdir(), "huggingface")
    )
    log.info("fetching %s from the hub", name)
    try:
        known = hub.HfApi(token=token).list_repo_files(name, revision=revision)
        ignored = [*_OTHER_WEIGHTS, *([_PICKLED] if fnmatch.filter(known, "*.safetensors") else [])]
        place = hub.snapshot_download(
            name, revision=revision, token=token, cache_dir=cache / "hub", ignore_patterns=ignored
        )
    except Exception as error:
        raise LoadError(f"HF_MODEL_ID is {name}, and it could not be fetched: {_why(error)}") from error
    return _checked(Path(place), f"HF_MODEL_ID is {name}, and that repository")


def _why(error: Exception) -> str:
    """In words: the hub's own where it answered, and otherwise what stands in the way of reaching it."""
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "HFValidationError"):
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return (
            f"{kind}: {first} Check the name and HF_MODEL_REVISION; a private or gated model needs HF_TOKEN in the "
            "model's Environment"
        )
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return (
        f"{kind}: {error}. The hub {hub} could not be used from inside the instance: a model with "
        "EnableNetworkIsolation has no network, and behind a proxy the model's Environment must name it (HTTPS_PROXY). "
        "Without a network pack the files into model.tar.gz and leave HF_MODEL_ID out, or make it a folder of the "
        "archive"
    )
