"""MLflow's model server: a directory that `mlflow…log_model` wrote, answered through its python_function flavor.

What a model holds is its author's code, packages and pickles, so it is loaded in workers, like a script, and answers
one request at a time. The environment is made of the model's own files (`clary.host.model_requirements`); the protocol
is `scoring`'s. MLflow's own settings of its server count where the platform's are not set: `MLFLOW_MODELS_WORKERS` and
`MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`.
"""

import importlib
import logging
import os
import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

# Before mlflow is imported, which would start a thread that calls its makers.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from clary.runtimes.contract import Limits, LoadError
from clary.runtimes.frameworks.mlflow.scoring import Scorer
from clary.runtimes.handler import words_of
from clary.runtimes.scripts import payload_limit
from clary.runtimes.workers import ScriptedModel, settings_of

MLMODEL = "MLmodel"
FLAVOR = "python_function"
_MOST_NAMES = 5
_SAME = {
    "SAGEMAKER_MODEL_SERVER_WORKERS": "MLFLOW_MODELS_WORKERS",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
}

log = logging.getLogger(__name__)


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> ScriptedModel:
    if not (model_dir / MLMODEL).is_file():
        names = sorted(path.name for path in model_dir.iterdir())
        beside = f" beside {', '.join(names[:_MOST_NAMES])}" if names else ""
        raise LoadError(
            f"the model archive has no {MLMODEL} file at its root{beside}: pack what is in the directory that MLflow "
            "wrote, not the directory"
        )
    wanted = environment.get("MLFLOW_DEPLOYMENT_FLAVOR_NAME", FLAVOR)
    if wanted != FLAVOR:
        raise LoadError(f"MLFLOW_DEPLOYMENT_FLAVOR_NAME is {wanted}; only {FLAVOR} is served here")
    known = {name: environment.get(name) or environment.get(other, "") for name, other in _SAME.items()}
    count, timeout_s = settings_of(known, vcpus)
    limits = Limits(payload_limit(environment), "MULTI_RECORD")
    return ScriptedModel(partial(_open, model_dir), count, timeout_s, limits)


def _open(model_dir: Path) -> Scorer:
    """In a worker. Raises `LoadError`."""
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    described = _described(model_dir)
    pyfunc = importlib.import_module("mlflow.pyfunc")
    version = importlib.import_module("mlflow.version").VERSION
    log.info("loading the model with MLflow %s", version)
    if int(version.partition(".")[0]) < 2:
        raise LoadError(
            f"the model's requirements bring MLflow {version}, whose protocol is no longer spoken: raise mlflow "
            "to 2 or later in its requirements.txt"
        )
    try:
        return Scorer(pyfunc.load_model(str(model_dir)))
    except Exception as error:
        raise LoadError(
            f"MLflow {version} cannot load the model: {words_of(error)}{_other(described)}"
        ) from error


def _described(model_dir: Path) -> dict[str, Any]:
    """What MLmodel says of its Python function. Raises `LoadError`."""
    try:
        content = importlib.import_module("yaml").safe_load((model_dir / MLMODEL).read_text())
        flavors = content["flavors"]
        described: dict[str, Any] = flavors[FLAVOR]
        described["loader_module"]
    except KeyError as error:
        raise LoadError(
            f"{MLMODEL} has no {error} for {FLAVOR}: log the model with a flavor that MLflow can serve"
        ) from error
    except Exception as error:
        raise LoadError(f"{MLMODEL} cannot be read: {type(error).__name__}: {error}") from error
    return described


def _other(described: Mapping[str, Any]) -> str:
    """What is likely when pickled code does not load: it is of another Python."""
    made_with, here = str(described.get("python_version", "")), platform.python_version()
    if not made_with or made_with.split(".")[:2] == here.split(".")[:2]:
        return ""
    return (
        f". It was logged with Python {made_with}, and this is {here}: code that is pickled fits its own only"
    )
