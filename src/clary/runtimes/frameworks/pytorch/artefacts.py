"""A model file without a script: TorchScript, or a program that `torch.export` made.

As in the AWS toolkit it is `model.pt`, or the only `.pt` or `.pth` in the archive's root; `.pt2` besides. What
`torch.save` wrote holds weights, or classes by name: that needs a script, and which one is said here.
"""

import logging
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clary.runtimes.contract import LoadError

USUAL = "model.pt"
ENDINGS = (".pt", ".pth", ".pt2")
_MOST_NAMES = 5

log = logging.getLogger(__name__)


def load_model(model_dir: str | Path) -> Any:
    """Something that takes tensors and gives tensors. Raises `LoadError`."""
    path = _find(Path(model_dir))
    kind = _kind(path)
    log.info(
        "loading %s, %d bytes, %s, with PyTorch %s", path.name, path.stat().st_size, kind, torch.__version__
    )
    if kind == "a state dict or a pickled module":
        raise LoadError(_needs_script(path))
    try:
        return _LOADERS[kind](path)
    except Exception as error:
        raise LoadError(f"PyTorch cannot load {path.name} as {kind}: {_first_line(error)}") from error


def _find(model_dir: Path) -> Path:
    if (model_dir / USUAL).is_file():
        return model_dir / USUAL
    found = sorted(path for path in model_dir.iterdir() if path.suffix in ENDINGS and path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found[:_MOST_NAMES])
        raise LoadError(
            f"the model archive has {names}: call the one to serve {USUAL}, or add code/inference.py with "
            "model_fn(model_dir)"
        )
    names = ", ".join(sorted(path.name for path in model_dir.iterdir())[:_MOST_NAMES])
    raise LoadError(
        f"the model archive has no {USUAL} and no other {', '.join(ENDINGS)} file in its root"
        f"{names and f', only {names}'}: save the model there with torch.jit.save or torch.export.save, or add "
        "code/inference.py with model_fn(model_dir)"
    )


def _kind(path: Path) -> str:
    """By the members of the file, which is a zip; nothing is unpickled to find out."""
    try:
        with zipfile.ZipFile(path) as members:
            names = [name.partition("/")[2] or name for name in members.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return "a state dict or a pickled module"
        raise LoadError(f"{path.name} is no file of PyTorch: {_first_line(error)}") from error
    if "constants.pkl" in names:
        return "TorchScript"
    if any(name in ("archive_format", "serialized_exported_program.json") for name in names):
        return "an exported program"
    if "data.pkl" in names:
        return "a state dict or a pickled module"
    raise LoadError(f"{path.name} is a zip file, and nothing that PyTorch saved")


def _load_script(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of TorchScript as such: nothing to be done about a file
        model = torch.jit.load(str(path), map_location="cpu")
    model.eval()
    return model


def _load_export(path: Path) -> Any:
    return torch.export.load(path).module()


_LOADERS: dict[str, Callable[[Path], Any]] = {
    "TorchScript": _load_script,
    "an exported program": _load_export,
}


def _needs_script(path: Path) -> str:
    return (
        f"{path.name} was written by torch.save: it holds weights or a pickled module, and not the code of the model. "
        f"Save torch.jit.script(model) as {USUAL} instead, or torch.export.export(model, …) as model.pt2, or add "
        f"code/inference.py with model_fn(model_dir) that makes the model and returns it after "
        f"model.load_state_dict(torch.load(os.path.join(model_dir, {path.name!r})))"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
