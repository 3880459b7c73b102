"""Finds the model's file, and the booster in it: LightGBM's text, or a pickle as `pickle` or joblib writes it.

A pickled booster holds its model as text, and a pickled model in scikit-learn's manner holds a booster. A pickle takes
the Python package to read, a second and some fifty megabytes that the text does without. Reading one runs what it says,
which is why it happens in the instance only: there it is the user's own code.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.lightgbm.library import version

PREFERRED = ("lightgbm-model", "model.txt", "model.lgb")
_PICKLED = (
    b"\x80",
    b"x\x01",
    b"x\x5e",
    b"x\x9c",
    b"x\xda",
    b"\x1f\x8b",
    b"BZ",
    b"\xfd7zXZ",
)  # the rest: compressed


@dataclass(frozen=True, slots=True)
class Found:
    """A booster's text, and what the pickle says besides. `labels` are a classifier's, in the order of its scores."""

    name: str
    text: str
    best_iteration: int = 0
    labels: tuple[Any, ...] = ()


def read_model(model_dir: Path) -> Found:
    """Raises `LoadError`."""
    path = model_path(model_dir)
    content = path.read_bytes()
    if content.startswith(b"tree\n"):
        return Found(path.name, content.decode("utf-8", "replace"))
    if content.startswith(_PICKLED):
        return _pickled(path)
    if content.lstrip()[:1] == b"{":
        raise LoadError(
            f"{path.name} is what dump_model gives, which LightGBM does not read: call "
            "booster.save_model('model.txt') and upload that file"
        )
    if not content:
        raise LoadError(f"{path.name} is empty")
    raise LoadError(
        f"{path.name} is no LightGBM model: neither its text nor a pickle, it begins with {content[:8]!r}"
    )


def model_path(model_dir: Path) -> Path:
    found = sorted(path for path in model_dir.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise LoadError(
            "the model archive has no model file in its root: put one file there, such as model.txt"
        )
    preferred = [path for name in PREFERRED for path in found if path.name == name]
    if len(found) > 1 and not preferred:
        names = ", ".join(path.name for path in found[:5])
        raise LoadError(f"the model archive has several files in its root, {names}: call the model model.txt")
    return (preferred or found)[0]


def _pickled(path: Path) -> Found:
    try:
        return _found(path.name, importlib.import_module("joblib").load(path))
    except Exception as error:
        words = str(error).splitlines()
        raise LoadError(
            f"{path.name} is a pickle from which LightGBM {version()} gets no Booster "
            f"({type(error).__name__}: {words[0][:80] if words else ''}): call booster.save_model('model.txt') with "
            "the version that made it and upload that file, or give the model a code/inference.py that reads it"
        ) from error


def _found(name: str, pickled: Any) -> Found:
    booster = getattr(pickled, "booster_", pickled)  # of a model in scikit-learn's manner
    if not hasattr(booster, "model_to_string"):
        raise TypeError(f"it holds {type(pickled).__name__}")
    labels = getattr(pickled, "classes_", ())
    return Found(
        name,
        booster.model_to_string(num_iteration=-1),
        int(getattr(pickled, "best_iteration_", None) or booster.best_iteration or 0),
        tuple(getattr(labels, "tolist", lambda: labels)()),
    )
