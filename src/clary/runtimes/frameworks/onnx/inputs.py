"""What a graph declares of its inputs: names, types, and which dimensions are open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clary.runtimes.contract import LoadError

_TYPES: Mapping[str, Any] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a graph. An open dimension is None; `shape` itself is None when the graph does not say."""

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int | None, ...] | None

    @property
    def is_open(self) -> bool:
        """Whether its first dimension is a number of rows."""
        return bool(self.shape) and self.shape is not None and self.shape[0] is None

    def __str__(self) -> str:
        if self.shape is None:
            return self.name
        return f"{self.name}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def input_of(found: Any) -> Input:
    """What a session says of one of its inputs. Raises `LoadError` for a type that no request can bring."""
    dtype = _TYPES.get(found.type)
    if dtype is None:
        raise LoadError(
            f"the graph's input {found.name} is of type {found.type}, which no request can bring: give the model a "
            "code/inference.py that makes it"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in found.shape)
    return Input(
        found.name, np.dtype(dtype), shape or None
    )  # the library says the same of no shape and of a number's
