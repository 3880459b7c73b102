"""The booster in a pickle: a Booster's, or that of a model in scikit-learn's manner.

A pickle names classes, and XGBoost's have changed since. None of them is needed: of each object it is enough to keep
what the pickle says of it, and the booster's own state is bytes that the library reads. So the Python package is
not imported, and pickles of every version since 0.90 are read by a library that reads their bytes.

Reading a pickle runs what it says, which is why it happens in the instance only: there it is the user's own code.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.xgboost import library

RESAVE = "with the XGBoost version that made it, call booster.save_model('model.ubj') and upload that file"

_SNAPSHOTS = (b"{L", b'{"', b"CONFIG-offset:")  # since version 1.6, 1.3 and 1.0


class NoBooster(Exception):
    """What was pickled holds none."""


class Kept:
    """Stands in for an object of XGBoost's or of a package that is not here."""

    state: Mapping[str, Any] = {}

    def __init__(self, *arguments: object, **options: object) -> None:
        """Takes whatever the true class would."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = state


def booster_in(name: str, content: bytes) -> bytes:
    """The pickled booster's model, as the library loads it. Raises `LoadError`."""
    try:
        state = _state_of(_Unpickler(io.BytesIO(content)).load())
        return library.model_in_snapshot(state) if state.startswith(_SNAPSHOTS) else _plain(state)
    except Exception as error:
        words = str(error).splitlines()
        raise LoadError(
            f"{name} is a pickle from which XGBoost {library.version()} gets no Booster "
            f"({type(error).__name__}: {words[0][:80] if words else ''}): {RESAVE}"
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What is not here, such as scikit-learn's classes of a classifier's labels, is not needed either."""
        if module.partition(".")[0] == "xgboost":
            return Kept
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Kept


def _state_of(found: object) -> bytes:
    if isinstance(found, Kept):
        if "_Booster" in found.state:
            return _state_of(found.state["_Booster"])
        found = found.state.get("handle")
    if isinstance(found, bytes | bytearray):
        return bytes(found)
    raise NoBooster(f"it holds {type(found).__name__}")


def _plain(state: bytes) -> bytes:
    """Before 1.0 a booster's state was its model in the binary format."""
    if not library.reads_binary():
        raise NoBooster("it has the old binary format, which was removed in version 3.1")
    return state
