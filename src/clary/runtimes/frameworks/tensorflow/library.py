"""TensorFlow's C API, as much as serving a SavedModel needs, without importing the Python package.

This is the interface that TensorFlow Serving's own loader sits on: a session from a SavedModel with its start-up
operations run, and runs by the names of a signature's tensors. Importing `tensorflow` takes seconds and most of it
is for building and training; loading its shared library takes a fraction of one and starts no thread, so that a
zygote may hold it. Threads begin with the first session, in the instance.

The library's words for what it refuses are kept, with its code.
"""

import ctypes
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from clary.runtimes.frameworks.tensorflow import protobufs
from clary.runtimes.frameworks.tensorflow.dtypes import DTYPES, STRING, TYPE_NAMES, Array
from clary.runtimes.frameworks.tensorflow.faults import TensorFlowError
from clary.runtimes.frameworks.tensorflow.protobufs import SignatureDef

_FLOAT: Final = 1
_BOOL: Final = 10
_SERVE: Final = b"serve"
_STRING_BYTES: Final = 24  # of a TF_TString
_IN_CALLERS_THREAD: Final = b"\x18" + b"\xff" * 9 + b"\x01"  # RunOptions.inter_op_thread_pool = -1


class LibraryMissing(ImportError):
    """The environment has no TensorFlow."""


class Session:
    """A loaded SavedModel. `run` may be called from several threads at once."""

    def __init__(self, directory: Path, intra_op_threads: int, inter_op_threads: int) -> None:
        """Loads what is tagged `serve` and runs its start-up operations. Raises `TensorFlowError`."""
        self._handle: int | None = None
        self._graph = _quick.TF_NewGraph()
        config = protobufs.session_config(intra_op_threads, inter_op_threads)
        status, meta_graph, options = _Status(), _quick.TF_NewBuffer(), _quick.TF_NewSessionOptions()
        _quick.TF_SetConfig(options, config, len(config), status.handle)
        self._handle = _slow.TF_LoadSessionFromSavedModel(
            options,
            None,
            os.fsencode(directory),
            (ctypes.c_char_p * 1)(_SERVE),
            1,
            self._graph,
            meta_graph,
            status.handle,
        )
        _quick.TF_DeleteSessionOptions(options)
        described = _content(meta_graph)
        _quick.TF_DeleteBuffer(meta_graph)
        status.check()
        self.signatures: dict[str, SignatureDef] = protobufs.read_signatures(described)
        self._places: dict[str, _Place] = {}

    def __del__(self) -> None:
        """A server of many models unloads them."""
        status = _Status()
        if self._handle:
            _quick.TF_CloseSession(self._handle, status.handle)
            _quick.TF_DeleteSession(self._handle, status.handle)
        _quick.TF_DeleteGraph(self._graph)

    def run(
        self, feeds: Sequence[tuple[str, int, Array]], fetches: Sequence[str], *, is_short: bool
    ) -> list[Array]:
        """The tensors that `fetches` names, with those of `feeds` (name, type, values) put in.

        A run that is expected to be short stays in this thread and keeps the interpreter's lock: handing over the one
        or the other costs more. Raises `TensorFlowError`.
        """
        status = _Status()
        inputs = (_Place * len(feeds))(*[self._place(name) for name, _, _ in feeds])
        outputs = (_Place * len(fetches))(*[self._place(name) for name in fetches])
        given = (ctypes.c_void_p * len(feeds))()
        results = (ctypes.c_void_p * len(fetches))()
        try:
            for number, (_, dtype, values) in enumerate(feeds):
                given[number] = _to_tensor(dtype, values)
            (_quick if is_short else _slow).TF_SessionRun(
                self._handle,
                _caller_options if is_short else None,
                inputs,
                given,
                len(feeds),
                outputs,
                results,
                len(fetches),
                None,
                0,
                None,
                status.handle,
            )
            status.check()
            return [_to_array(int(result or 0)) for result in results]
        finally:
            for tensor in (*given, *results):
                if tensor:
                    _quick.TF_DeleteTensor(tensor)

    def prepare(self, signature: SignatureDef) -> None:
        """Has the graph optimised for a signature, which its first run would wait for. No operation is run.

        The one way to ask for it is a run that is refused before it begins, because a tensor has the wrong type.
        """
        feeds = [
            (info.name, _BOOL if info.dtype != _BOOL else _FLOAT, np.zeros((), dtype=bool))
            for info in signature.inputs.values()
        ]
        with suppress(TensorFlowError):
            self.run(feeds, [info.name for info in signature.outputs.values()], is_short=True)

    def _place(self, name: str) -> "_Place":
        known = self._places.get(name)
        if known is None:
            operation, _, index = name.partition(":")
            handle = _quick.TF_GraphOperationByName(self._graph, operation.encode())
            if not handle:
                raise TensorFlowError(5, f"the graph has no operation {operation}, which a signature names")
            known = self._places[name] = _Place(handle, int(index or 0))
        return known


def release_memory() -> None:
    """Gives back to the system what loading needed for a moment: megabytes, for each instance."""
    ctypes.CDLL(None).malloc_trim(0)


def version() -> str:
    return str(_quick.TF_Version().decode())


class _Place(ctypes.Structure):
    """A TF_Output: one of an operation's results."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


class _Status:
    """A TF_Status for one call."""

    __slots__ = ("handle",)

    def __init__(self) -> None:
        self.handle: int = _quick.TF_NewStatus()

    def __del__(self) -> None:
        _quick.TF_DeleteStatus(self.handle)

    def check(self) -> None:
        """Raises `TensorFlowError` when the call did not go well."""
        if code := _quick.TF_GetCode(self.handle):
            raise TensorFlowError(code, _quick.TF_Message(self.handle).decode("utf-8", "replace"))


def _to_tensor(dtype: int, values: Array) -> int:
    """A new tensor with a copy of the values, to be deleted."""
    shape = values.shape
    dimensions = (ctypes.c_int64 * len(shape))(*shape)
    size = values.size * (_STRING_BYTES if dtype == STRING else DTYPES[dtype].itemsize)
    tensor: int = _quick.TF_AllocateTensor(dtype, dimensions, len(shape), size)
    place: int = _quick.TF_TensorData(tensor)
    if dtype == STRING:
        for number, value in enumerate(values.ravel()):
            element = place + number * _STRING_BYTES
            _quick.TF_StringInit(element)
            _quick.TF_StringCopy(element, value, len(value))
    elif size:
        values = np.ascontiguousarray(values, dtype=DTYPES[dtype])
        ctypes.memmove(place, values.__array_interface__["data"][0], size)
    return tensor


def _to_array(tensor: int) -> Array:
    dtype = _quick.TF_TensorType(tensor)
    shape = tuple(_quick.TF_Dim(tensor, axis) for axis in range(_quick.TF_NumDims(tensor)))
    place, size = _quick.TF_TensorData(tensor), _quick.TF_TensorByteSize(tensor)
    if dtype == STRING:
        return _strings(place, size // _STRING_BYTES).reshape(shape)
    if dtype not in DTYPES:
        raise TensorFlowError(
            3, f"Failed to write JSON value for tensor type: {TYPE_NAMES.get(dtype, dtype)}"
        )
    content = ctypes.string_at(place, size) if size else b""
    return np.frombuffer(content, DTYPES[dtype]).reshape(shape)


def _strings(place: int, count: int) -> Array:
    values = np.empty(count, dtype=object)
    for number in range(count):
        element = place + number * _STRING_BYTES
        values[number] = ctypes.string_at(
            _quick.TF_StringGetDataPointer(element), _quick.TF_StringGetSize(element)
        )
    return values


def _content(buffer: int) -> bytes:
    found = ctypes.cast(buffer, ctypes.POINTER(_Buffer)).contents
    return ctypes.string_at(found.data, found.length) if found.length else b""


def _load() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """The library twice: for calls that take long and let other threads go on, and for those that do not."""
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise LibraryMissing("this environment has no TensorFlow")
    folder = Path(found.submodule_search_locations[0])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    # For nobody else: it carries a TLS library of its own, whose names Python's modules must not find.
    path = str(folder / "libtensorflow_cc.so.2")
    slow, quick = ctypes.CDLL(path), ctypes.PyDLL(path)
    for function, (result, *arguments) in _FUNCTIONS.items():
        for library in (slow, quick):
            declared = getattr(library, function)
            declared.restype, declared.argtypes = result, arguments
    return slow, quick


_P, _I, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "TF_Version": (ctypes.c_char_p,),
    "TF_NewStatus": (_P,),
    "TF_DeleteStatus": (None, _P),
    "TF_GetCode": (_I, _P),
    "TF_Message": (ctypes.c_char_p, _P),
    "TF_NewGraph": (_P,),
    "TF_NewBuffer": (_P,),
    "TF_NewBufferFromString": (_P, ctypes.c_char_p, _S),
    "TF_DeleteBuffer": (None, _P),
    "TF_GetAllOpList": (_P,),
    "TF_NewSessionOptions": (_P,),
    "TF_SetConfig": (None, _P, ctypes.c_char_p, _S, _P),
    "TF_DeleteSessionOptions": (None, _P),
    "TF_LoadSessionFromSavedModel": (_P, _P, _P, ctypes.c_char_p, _P, _I, _P, _P, _P),
    "TF_CloseSession": (None, _P, _P),
    "TF_DeleteSession": (None, _P, _P),
    "TF_DeleteGraph": (None, _P),
    "TF_GraphOperationByName": (_P, _P, ctypes.c_char_p),
    "TF_SessionRun": (None, _P, _P, _P, _P, _I, _P, _P, _I, _P, _I, _P, _P),
    "TF_AllocateTensor": (_P, _I, _P, _I, _S),
    "TF_DeleteTensor": (None, _P),
    "TF_TensorType": (_I, _P),
    "TF_NumDims": (_I, _P),
    "TF_Dim": (ctypes.c_int64, _P, _I),
    "TF_TensorByteSize": (_S, _P),
    "TF_TensorData": (_P, _P),
    "TF_StringInit": (None, _P),
    "TF_StringCopy": (None, _P, ctypes.c_char_p, _S),
    "TF_StringGetDataPointer": (_P, _P),
    "TF_StringGetSize": (_S, _P),
}
_slow, _quick = _load()
# Has the kinds of operations registered, once for all that is forked from here, not when the first one is looked up.
_quick.TF_DeleteBuffer(_quick.TF_GetAllOpList())
_caller_options = _quick.TF_NewBufferFromString(_IN_CALLERS_THREAD, len(_IN_CALLERS_THREAD))
