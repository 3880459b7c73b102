"""Finds a model's files and says in plain words what cannot be used.

The built-in algorithm's rule: every file in the model directory's root that does not begin with a dot is a model;
several make an ensemble. XGBoost's own formats are UBJ and JSON; a pickled Booster is read where today's version can;
what older versions wrote is recognised and refused by name, with the way to convert it.
"""

import importlib.metadata
import pickle
from collections.abc import Mapping
from pathlib import Path

from clary.runtimes.contract import LoadError

_USER_CODE = ("SAGEMAKER_PROGRAM", "SAGEMAKER_SUBMIT_DIRECTORY")
_OLD_BINARY = (b"binf", b"bs64")
_RESAVE = "with the XGBoost version that made it, call booster.save_model('model.ubj') and upload that file"


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
        return _unpickled(path.name, content)
    if start in _OLD_BINARY:
        raise LoadError(
            f"{path.name} has XGBoost's old binary format, which was removed in version 3.1: {_RESAVE}"
        )
    if not content:
        raise LoadError(f"{path.name} is empty")
    raise LoadError(f"{path.name} is no XGBoost model: neither UBJ nor JSON, it begins with {content[:8]!r}")


def _unpickled(name: str, content: bytes) -> bytes:
    """A pickle's booster as UBJ. This runs what the pickle says, which is why it happens in the instance only.

    XGBoost's Python package is imported for it alone; what a much older version pickled, it cannot read.
    """
    try:
        # The model is the user's own code as far as a pickle is, in the user's own instance.
        found = pickle.loads(content)  # noqa: S301
        booster = found.get_booster() if hasattr(found, "get_booster") else found
        return bytes(booster.save_raw("ubj"))
    except Exception as error:
        raise LoadError(
            f"{name} is a pickle from which XGBoost {_version()} gets no Booster "
            f"({type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}): {_RESAVE}"
        ) from error


def _version() -> str:
    try:
        return importlib.metadata.version("xgboost-cpu")
    except importlib.metadata.PackageNotFoundError:
        return "of today"
