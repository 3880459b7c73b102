"""What the TensorFlow Serving container takes from its environment, as far as it means something here.

`SAGEMAKER_TFS_INSTANCE_COUNT` and the settings of nginx' and gunicorn's own machinery have nothing to act on and are
left alone; those that say how many and how long are kept.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from clary.runtimes.contract import LoadError

DEFAULT_MAX_BATCH_SIZE = 8
DEFAULT_READ_TIMEOUT_S = 60

_RENAMED = {
    "SAGEMAKER_GUNICORN_WORKERS": "SAGEMAKER_MODEL_SERVER_WORKERS",
    "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "SAGEMAKER_MODEL_SERVER_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_batch_size` is in rows; 0 means one run a request."""

    intra_op_threads: int
    inter_op_threads: int
    max_batch_size: int


def read_settings(environment: Mapping[str, str], vcpus: int) -> Settings:
    """Raises `LoadError` for a value that cannot be used."""
    threads = min(vcpus, len(os.sched_getaffinity(0)))
    enabled = environment.get("SAGEMAKER_TFS_ENABLE_BATCHING", "false").lower()
    if enabled not in ("true", "false"):
        raise LoadError("SAGEMAKER_TFS_ENABLE_BATCHING must be 'true' or 'false'")
    most = _number(environment, "SAGEMAKER_TFS_MAX_BATCH_SIZE", DEFAULT_MAX_BATCH_SIZE)
    return Settings(
        intra_op_threads=min(
            _number(environment, "SAGEMAKER_TFS_INTRA_OP_PARALLELISM", 0) or threads, threads
        ),
        inter_op_threads=min(
            _number(environment, "SAGEMAKER_TFS_INTER_OP_PARALLELISM", 0) or threads, threads
        ),
        max_batch_size=most if enabled == "true" else 0,
    )


def script_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """With the container's names for workers and their time under those that every runtime has."""
    renamed = {new: environment[old] for old, new in _RENAMED.items() if environment.get(old)}
    return {**renamed, **environment}


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, "") or str(default)
    if not value.isdecimal():
        raise LoadError(f"{name} is {value!r}, which is no whole number")
    return int(value)
