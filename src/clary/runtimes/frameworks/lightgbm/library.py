"""LightGBM's C API, as much as serving needs, without importing the Python package.

The package brings pandas and scikit-learn with it, and its Python costs more than a small prediction does. Importing
this module loads the shared library, so a zygote that has it imported hands it to every instance. `use_one_thread`
before the first booster keeps the library from starting any: whoever wants more calls from several.

A single row has a way of its own in the library, prepared once for each thread. It answers only when a trial showed, at
the start, that it gives exactly what the way of `Booster.predict` gives.
"""

import ctypes
import importlib
import importlib.util
import math
import random
import re
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TRIED_ROWS = 64
_FLOAT64: Final = 1
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0
_PARAMETERS: Final = b"num_threads=1"
_RANGE = re.compile(r"\[(?P<low>[^:\]]+):(?P<high>[^:\]]+)\]$")


class LibraryMissing(ImportError):
    """The environment has no LightGBM."""


class LightGBMError(Exception):
    """LightGBM refused; its own words."""


class Booster:
    """A trained model. `predict` may be called from several threads at once."""

    def __init__(self, model: str, best_iteration: int = 0) -> None:
        self._owner = _Owner()
        self._handle = self._owner.handle
        self._local = threading.local()
        self._rounds = best_iteration if best_iteration > 0 else -1
        loaded = ctypes.c_int()
        _check(_library.LGBM_BoosterLoadModelFromString(model.encode(), _ref(loaded), _ref(self._handle)))
        self.iterations = loaded.value
        self.features = self._count("LGBM_BoosterGetNumFeature")
        self.classes = self._count("LGBM_BoosterGetNumClasses")
        self.objective = _header(model, "objective").partition(" ")[0]
        self.outputs = self._count_outputs()
        self.has_fast_row = False
        self.has_fast_row = self._is_fast_row_equal(_header(model, "feature_infos").split(" "))

    def predict(self, values: "array[float]", rows: int) -> list[float]:
        """The scores of `rows` rows that stand one after the other in `values`, row by row."""
        if rows == 1 and self.has_fast_row:
            return self._workspace().predict(values)
        return self.predict_together(values, rows)

    def predict_together(self, values: "array[float]", rows: int) -> list[float]:
        """The way that `Booster.predict` of the Python package goes."""
        scores = (ctypes.c_double * (rows * self.outputs))()
        length = ctypes.c_int64()
        place = ctypes.c_void_p(values.buffer_info()[0])
        _check(
            _library.LGBM_BoosterPredictForMat(
                self._handle, place, _FLOAT64, ctypes.c_int32(rows), ctypes.c_int32(self.features), _ROW_MAJOR,
                _NORMAL, 0, self._rounds, _PARAMETERS, _ref(length), scores,
            )
        )  # fmt: skip
        return scores[: length.value]

    def _workspace(self) -> "_FastRow":
        """This thread's own."""
        try:
            workspace: _FastRow = self._local.workspace
        except AttributeError:
            workspace = self._local.workspace = _FastRow(
                self._owner, self._rounds, self.features, self.outputs
            )
        return workspace

    def _is_fast_row_equal(self, ranges: Sequence[str]) -> bool:
        """Rows within what the model was trained on, with some values missing: equal in every bit, or not used."""
        chance = random.Random(1)
        rows = [array("d", [_drawn(chance, each) for each in ranges]) for _ in range(TRIED_ROWS)]
        if any(len(row) != self.features for row in rows):
            return False
        together = self.predict_together(array("d", [value for row in rows for value in row]), TRIED_ROWS)
        fast = self._workspace()
        return [score for row in rows for score in fast.predict(row)] == together

    def _count(self, function: str) -> int:
        count = ctypes.c_int()
        _check(getattr(_library, function)(self._handle, _ref(count)))
        return count.value

    def _count_outputs(self) -> int:
        length = ctypes.c_int64()
        _check(_library.LGBM_BoosterCalcNumPredict(self._handle, 1, _NORMAL, 0, self._rounds, _ref(length)))
        return length.value


class _Owner:
    """The library's booster, which goes when nothing uses it any more: a server of many models unloads them."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()

    def __del__(self) -> None:
        if self.handle:
            _library.LGBM_BoosterFree(self.handle)


class _FastRow:
    """One thread's way for single rows."""

    def __init__(self, owner: _Owner, rounds: int, features: int, outputs: int) -> None:
        self._owner = owner  # it must not go before this does
        self._config = ctypes.c_void_p()
        _check(
            _library.LGBM_BoosterPredictForMatSingleRowFastInit(
                owner.handle, _NORMAL, 0, rounds, _FLOAT64, ctypes.c_int32(features), _PARAMETERS, _ref(self._config)
            )
        )  # fmt: skip
        self._scores = (ctypes.c_double * outputs)()
        self._length = ctypes.c_int64()
        self._reference = _ref(self._length)

    def __del__(self) -> None:
        if self._config:
            _library.LGBM_FastConfigFree(self._config)

    def predict(self, values: "array[float]") -> list[float]:
        if _predict_row(self._config, values.buffer_info()[0], self._reference, self._scores):
            raise _last_error()
        return self._scores[:]


def use_one_thread() -> None:
    """For the whole process, and reading a model too. Not for scripts, which decide that themselves."""
    _check(_library.LGBM_SetMaxThreads(1))


def version() -> str:
    """Of the package that the library came in."""
    metadata = importlib.import_module("importlib.metadata")
    return str(metadata.version("lightgbm"))


def _header(model: str, name: str) -> str:
    """A line of the model's text, from before its trees."""
    head = model.partition("\nTree=")[0]
    return next((line.partition("=")[2] for line in head.splitlines() if line.startswith(f"{name}=")), "")


def _drawn(chance: random.Random, told: str) -> float:
    """A value within a feature's range, of its categories, or none."""
    if chance.random() < 0.05:
        return math.nan
    if found := _RANGE.match(told):
        return chance.uniform(float(found["low"]), float(found["high"]))
    return float(chance.choice(told.split(":"))) if told and told != "none" else 0.0


def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise LibraryMissing("lightgbm is not installed in this environment")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "lib_lightgbm.so"))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    library.LGBM_RegisterLogCallback(_SILENT)
    return library


def _ignore(line: bytes) -> None:
    """The library warns on stdout of what is no fault; faults come as errors."""


_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_ignore)  # kept, because the library keeps only its address


def _ref(value: object) -> object:
    return ctypes.byref(value)  # type: ignore[arg-type]


def _check(code: int) -> None:
    if code:
        raise _last_error()


def _last_error() -> LightGBMError:
    return LightGBMError((_library.LGBM_GetLastError() or b"").decode("utf-8", "replace").strip())


_library = _load_library()
_predict_row = _library.LGBM_BoosterPredictForMatSingleRowFast
_predict_row.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
