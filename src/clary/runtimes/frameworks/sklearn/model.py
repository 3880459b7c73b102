"""The scikit-learn container's serving side: a script's handlers around the model that its `model_fn` reads.

There is no default for `model_fn`, as in the AWS container: a pickle alone does not say what is to be done with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.runtimes import encoding
from clary.runtimes.contract import LoadError
from clary.runtimes.handler import Defaults, find_script
from clary.runtimes.scripts import serve_script
from clary.runtimes.workers import ScriptedModel


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> ScriptedModel:
    script = find_script(model_dir, environment)
    if script is None:
        raise LoadError(_lacks_script(model_dir))
    return serve_script(script, model_dir, environment, vcpus, DEFAULTS)


def _input_fn(data: str | bytes, content_type: str) -> Any:
    array = encoding.decode(data, content_type)
    return array.astype("float32") if encoding.plain(content_type) in encoding.TEXT else array


def _predict_fn(data: Any, model: Any) -> Any:
    return model.predict(data)


DEFAULTS = Defaults("scikit-learn", _predict_fn, input_fn=_input_fn)


def _lacks_script(model_dir: Path) -> str:
    names = sorted(path.name for path in model_dir.iterdir())
    found = f" beside {', '.join(names[:5])}" if names else ""
    return (
        f"the model archive has no code/inference.py{found}, and SAGEMAKER_PROGRAM is not set: scikit-learn needs a "
        "script with model_fn(model_dir) that returns the model"
    )
