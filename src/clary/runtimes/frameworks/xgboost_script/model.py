"""The XGBoost container's framework mode: a script's handlers around the model that its `model_fn` reads.

Its defaults are the AWS container's: `input_fn` makes a DMatrix of CSV or libsvm, `predict_fn` calls the booster,
and `output_fn` writes JSON, CSV or npy. `application/x-recordio-protobuf` needs an `input_fn` of one's own here.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.runtimes import encoding
from clary.runtimes.contract import LoadError
from clary.runtimes.handler import Defaults, find_script
from clary.runtimes.scripts import serve_script
from clary.runtimes.workers import ScriptedModel

_LIBSVM = ("text/libsvm", "text/x-libsvm")


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> ScriptedModel:
    script = find_script(model_dir, environment)
    if script is None:
        names = ", ".join(sorted(path.name for path in model_dir.iterdir())[:5])
        raise LoadError(
            f"the model archive has no code/inference.py{names and f' beside {names}'}, "
            "and SAGEMAKER_PROGRAM is not set"
        )
    return serve_script(script, model_dir, environment, vcpus, DEFAULTS)


def _input_fn(data: str | bytes, content_type: str) -> Any:
    xgboost = importlib.import_module("xgboost")
    kind = encoding.plain(content_type)
    if kind == encoding.CSV:
        array = encoding.decode(data, content_type)
        lines = [line for line in str(data).splitlines() if line.strip()]
        return xgboost.DMatrix(array.reshape(len(lines), -1))
    if kind in _LIBSVM:
        return xgboost.DMatrix(_sparse(data if isinstance(data, str) else data.decode()))
    raise encoding.UnsupportedFormat(content_type)


def _predict_fn(data: Any, model: Any) -> Any:
    return model.predict(data, validate_features=False)


def _sparse(text: str) -> Any:
    """Rows of `index:value`, as they are: requests have no label in front."""
    values, columns, starts = [], [], [0]
    for line in filter(None, map(str.strip, text.splitlines())):
        for pair in line.split():
            column, _, value = pair.partition(":")
            columns.append(int(column))
            values.append(float(value))
        starts.append(len(values))
    return importlib.import_module("scipy.sparse").csr_matrix((values, columns, starts))


DEFAULTS = Defaults("XGBoost", _predict_fn, input_fn=_input_fn)
