"""Finds a model's files and says in plain words what cannot be used.

The built-in algorithm's rule: every file in the model directory's root that does not begin with a dot is a model;
several make an ensemble. XGBoost's own formats are UBJ and JSON; pickles have a module of their own. What versions
before 3.1 alone can read the host gives to the older environment, by the signs in `manifest.toml`; where such a
file comes here nevertheless it is refused by name, with the way to convert it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.xgboost import library, pickles

_USER_CODE = ("SAGEMAKER_PROGRAM", "SAGEMAKER_SUBMIT_DIRECTORY")
_OLD_BINARY = (b"binf", b"bs64")
# Before version 1.1 a file just began with its parameters, mostly zeros, and the name of the objective.
_OLDEST_BINARY = re.compile(rb".{72}\x00{64}[\x01-\x40]\x00{7}[a-z]+:", re.DOTALL)


def read_models(model_dir: Path, environment: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Name and content of each model file, in the order of their names. Raises `LoadError`."""
    _refuse_user_code(model_dir, environment)
    paths = sorted(path for path in model_dir.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise LoadError(
            "the model archive has no model file in its root: put one file there, such as xgboost-model"
        )
    if environment.get("SAGEMAKER_INFERENCE_ENSEMBLE", "true") != "true":
        paths = paths[:1]
    return [(path.name, _read(path)) for path in paths]


def _refuse_user_code(model_dir: Path, environment: Mapping[str, str]) -> None:
    for name in _USER_CODE:
        if environment.get(name):
            raise LoadError(f"{name} is set: the built-in algorithm runs no script, `xgboost_script` does")
    if (model_dir / "code" / "inference.py").exists():
        raise LoadError("code/inference.py: the built-in algorithm runs no script, `xgboost_script` does")


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    start = content[:4]
    if start[:1] == b"{" and len(content) > 2:
        return content
    if start[:1] == b"\x80" or b"cxgboost" in content[:64]:
        return pickles.booster_in(path.name, content)
    if start in _OLD_BINARY or _OLDEST_BINARY.match(content):
        if library.reads_binary():
            return content
        raise LoadError(
            f"{path.name} has XGBoost's old binary format, which was removed in version 3.1: {pickles.RESAVE}"
        )
    if not content:
        raise LoadError(f"{path.name} is empty")
    raise LoadError(f"{path.name} is no XGBoost model: neither UBJ nor JSON, it begins with {content[:8]!r}")
