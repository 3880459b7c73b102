"""XGBoost's C API, as much as serving needs, without importing the Python package.

Four fifths of `import xgboost` are scikit-learn, pandas and SciPy, which a booster does not need; and its Python
calls cost more than a small prediction does. Importing this module loads the shared library, so a zygote that
has it imported hands it to every instance; no thread is started before the first prediction, and none after it
either, because each booster predicts with one (`nthread` 1): whoever wants more calls from several threads.
"""

import ctypes
import importlib.util
import json
import re
import threading
from array import array
from pathlib import Path
from typing import Final

_FIRST_ROUNDS: Final = '"iteration_begin":0,"iteration_end":%d'
_PREDICT: Final = '{"type":0,"training":false,%s,"strict_shape":true,"missing":NaN,"cache_id":0}'
_ARRAY: Final = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}'
_WHERE = re.compile(r"^\[[\d:]+\] \S+?:\d+: ")


class LibraryMissing(ImportError):
    """The environment has no XGBoost."""


class XGBoostError(Exception):
    """XGBoost refused; its own words, without the C++ stack."""


class Booster:
    """A trained model. `predict` may be called from several threads at once."""

    def __init__(self, content: bytes) -> None:
        self._handle = ctypes.c_void_p()
        self._local = threading.local()
        self._matrix_lock = threading.Lock()
        _check(_library.XGBoosterCreate(None, 0, ctypes.byref(self._handle)))
        _check(_library.XGBoosterSetParam(self._handle, b"nthread", b"1"))
        _check(_library.XGBoosterLoadModelFromBuffer(self._handle, content, ctypes.c_uint64(len(content))))
        _check(_library.XGBoosterSetParam(self._handle, b"nthread", b"1"))  # loading sets it back
        self.features = self._count_features()
        learner = self._read_config()["learner"]
        self.objective = str(learner["objective"]["name"])
        self.classes = int(learner["learner_model_param"].get("num_class", "0"))
        self._options = (_PREDICT % (_FIRST_ROUNDS % self._rounds())).encode()
        self._predicts_in_place = True
        self.outputs = self._try_out()

    def __del__(self) -> None:
        """A server of many models unloads them."""
        if self._handle:
            _library.XGBoosterFree(self._handle)

    def predict(self, values: "array[float]", rows: int) -> list[float]:
        """The scores of `rows` rows that stand one after the other in `values`, row by row."""
        matrix = _ARRAY % (values.buffer_info()[0], rows, self.features)
        if self._predicts_in_place:
            return self._predict_in_place(matrix)
        with self._matrix_lock:
            return self._predict_by_matrix(matrix)

    def _predict_in_place(self, matrix: bytes) -> list[float]:
        proxy, answer = self._workspace()
        _check(_predict_from_dense(self._handle, matrix, self._options, proxy.handle, *answer.references))
        return answer.values()

    def _workspace(self) -> "tuple[_Proxy, _Answer]":
        """This thread's own."""
        try:
            workspace: tuple[_Proxy, _Answer] = self._local.workspace
        except AttributeError:
            workspace = self._local.workspace = _Proxy(), _Answer()
        return workspace

    def _predict_by_matrix(self, matrix: bytes) -> list[float]:
        """For boosters without trees (gblinear), which keep a cache and cannot be called concurrently."""
        handle, answer = ctypes.c_void_p(), _Answer()
        options = b'{"missing":NaN,"nthread":1}'
        _check(_library.XGDMatrixCreateFromDense(matrix, options, ctypes.byref(handle)))
        try:
            predict = _library.XGBoosterPredictFromDMatrix
            _check(predict(self._handle, handle, self._options, *answer.references))
            return answer.values()
        finally:
            _check(_library.XGDMatrixFree(handle))

    def _try_out(self) -> int:
        """Predicts one row of missing values: how many numbers a row gets, and which way works."""
        row = array("f", [float("nan")]) * max(self.features, 1)
        try:
            return len(self.predict(row, 1))
        except XGBoostError:
            self._predicts_in_place = False
            return len(self.predict(row, 1))

    def _rounds(self) -> int:
        """Rounds to use; 0 is all. XGBoost before 2 noted its best ones when it stopped early, and predicted
        with those; later versions leave it to the caller to cut the model, and predict with all."""
        if self._attribute(b"best_ntree_limit") is None:
            return 0
        boosted = ctypes.c_int()
        _check(_library.XGBoosterBoostedRounds(self._handle, ctypes.byref(boosted)))
        try:
            best = int(self._attribute(b"best_iteration") or -1) + 1
        except ValueError:
            return 0
        return best if 0 < best < boosted.value else 0

    def _attribute(self, name: bytes) -> bytes | None:
        value, found = ctypes.c_char_p(), ctypes.c_int()
        references = ctypes.byref(value), ctypes.byref(found)
        _check(_library.XGBoosterGetAttr(self._handle, name, *references))
        return value.value if found.value else None

    def _count_features(self) -> int:
        count = ctypes.c_uint64()
        _check(_library.XGBoosterGetNumFeature(self._handle, ctypes.byref(count)))
        return count.value

    def _read_config(self) -> dict[str, dict[str, dict[str, str]]]:
        length, text = ctypes.c_uint64(), ctypes.c_char_p()
        references = ctypes.byref(length), ctypes.byref(text)
        _check(_library.XGBoosterSaveJsonConfig(self._handle, *references))
        config: dict[str, dict[str, dict[str, str]]] = json.loads(text.value or b"{}")
        return config


def version() -> str:
    numbers = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _library.XGBoostVersion(*map(ctypes.byref, numbers))
    return ".".join(str(number.value) for number in numbers)


def reads_binary() -> bool:
    """Whether the library still reads the format that came before UBJ and JSON."""
    major, minor, _ = version().split(".")
    return (int(major), int(minor)) < (3, 1)


def model_in_snapshot(content: bytes) -> bytes:
    """The model, as UBJ, in the memory snapshot that a pickled booster holds."""
    handle = ctypes.c_void_p()
    _check(_library.XGBoosterCreate(None, 0, ctypes.byref(handle)))
    try:
        _check(_library.XGBoosterUnserializeFromBuffer(handle, content, ctypes.c_uint64(len(content))))
        length, model = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char)()
        references = ctypes.byref(length), ctypes.byref(model)
        _check(_library.XGBoosterSaveModelToBuffer(handle, b'{"format":"ubj"}', *references))
        return ctypes.string_at(model, length.value)
    finally:
        _check(_library.XGBoosterFree(handle))


class _Proxy:
    """A matrix that only points at data: one for each thread, as handing one in saves a third of a small call."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        _check(_library.XGProxyDMatrixCreate(ctypes.byref(self.handle)))

    def __del__(self) -> None:
        if self.handle:
            _library.XGDMatrixFree(self.handle)


class _Answer:
    """Where the library says what a prediction's shape is and where its numbers are."""

    def __init__(self) -> None:
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self._numbers = ctypes.POINTER(ctypes.c_float)()
        self.references = (
            ctypes.byref(self._shape),
            ctypes.byref(self._dimensions),
            ctypes.byref(self._numbers),
        )

    def values(self) -> list[float]:
        """Copied, because the library uses the memory again."""
        count = 1
        for size in self._shape[: self._dimensions.value]:
            count *= size
        copied: list[float] = self._numbers[:count]
        return copied


def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xgboost")
    if spec is None or spec.origin is None:
        raise LibraryMissing("xgboost is not installed in this environment")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libxgboost.so"))
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library


def _check(code: int) -> None:
    if code:
        raise _last_error()


def _last_error() -> XGBoostError:
    text = (_library.XGBGetLastError() or b"").decode("utf-8", "replace")
    return XGBoostError(_WHERE.sub("", text.split("\nStack trace")[0]).strip())


_library = _load_library()
_predict_from_dense = _library.XGBoosterPredictFromDense
