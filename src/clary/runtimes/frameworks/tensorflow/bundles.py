"""Finds the SavedModels of an archive, as the TensorFlow Serving container does, and says in plain words what is none.

    [<anything>/][<model>/]<version>/saved_model.pb

A model is a folder with versions, folders named by numbers; its own name is the folder's (`model` for the archive's
root). A `saved_model.pb` in any other folder counts for nothing. The first model is the default one.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clary.runtimes.contract import LoadError

SAVED_MODEL = "saved_model.pb"
ROOT_NAME = "model"
_KERAS = (".keras", ".h5", ".hdf5")
_MOST_NAMES = 5
_EXPORT = "write one with `tf.saved_model.save(model, '1')`, or `model.export('1')` of Keras, and archive the folder 1"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with all of its versions."""

    name: str
    versions: Mapping[int, Path]


def find_bundles(model_dir: Path) -> list[Bundle]:
    """In the order of their paths, at least one. Raises `LoadError`."""
    versions: dict[Path, dict[int, Path]] = {}
    for folder in _folders_with_models(model_dir):
        if folder.name.isdecimal() and folder != model_dir:
            versions.setdefault(folder.parent, {})[int(folder.name)] = folder
    if not versions:
        raise LoadError(_lacks_models(model_dir))
    found = [
        Bundle(ROOT_NAME if path == model_dir else path.name, numbers)
        for path, numbers in sorted(versions.items())
    ]
    names = [bundle.name for bundle in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LoadError(
            f"two models of the archive are called {twice[0]}: a model has the name of the folder its versions are in, "
            "so give one folder another name"
        )
    return found


def default_of(bundles: list[Bundle], environment: Mapping[str, str]) -> str:
    """The name of the model that answers when a request names none. Raises `LoadError`."""
    wanted = environment.get("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "")
    names = [bundle.name for bundle in bundles]
    if wanted and wanted not in names:
        raise LoadError(
            f"SAGEMAKER_TFS_DEFAULT_MODEL_NAME is {wanted}, and the archive's models are {', '.join(names)}"
        )
    return wanted or names[0]


def _folders_with_models(model_dir: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(model_dir):
        folders.sort()
        if SAVED_MODEL in names:
            yield Path(folder)


def _lacks_models(model_dir: Path) -> str:
    if misplaced := next(_folders_with_models(model_dir), None):
        place = misplaced.relative_to(model_dir) / SAVED_MODEL
        return (
            f"{place} is in no folder named by a version: put what is beside it into one such as 1/, so that the "
            f"archive has 1/{SAVED_MODEL}"
        )
    names = sorted(path.name for path in model_dir.iterdir())
    if keras := next((name for name in names if name.endswith(_KERAS)), None):
        return f"{keras} is a file of Keras, and TensorFlow Serving reads SavedModels: {_EXPORT}"
    found = f", only {', '.join(names[:_MOST_NAMES])}" if names else ""
    return f"the model archive has no <version>/{SAVED_MODEL}{found}: {_EXPORT}"
