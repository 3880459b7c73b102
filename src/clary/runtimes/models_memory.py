"""What the models of one server take: measured, because nothing a model says of itself would do.

The allocator is asked before and after a load, and so is the kernel, since large arrays and mapped files come from
there. Loads that overlap share what was found by the size of their files. What a model leaves behind when it is
unloaded goes back to the system: freed memory that the allocator keeps is worth nothing to the next model.
"""

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_NOT_FROM_THE_ALLOCATOR_BYTES = 16 << 20
"""Resident memory grows a little for many reasons; beyond this it is the model's."""


class Found:
    """The outcome of one measurement."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = max(size_bytes, 1)  # of its files
        self.rivals_bytes = 0  # of the files that were loaded meanwhile
        self.bytes = 0


class Memory:
    """Thread-safe. `limit_bytes` is for everything in here; `models_limit_bytes` for the models alone, 0: none."""

    def __init__(self, limit_bytes: int, models_limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.models_limit_bytes = models_limit_bytes
        self._lock = threading.Lock()
        self._under_way: list[Found] = []

    @contextmanager
    def measuring(self, size_bytes: int) -> Iterator[Found]:
        """Around the load of a model whose files have `size_bytes`; `bytes` is known behind it."""
        found = Found(size_bytes)
        with self._lock:
            for each in self._under_way:
                each.rivals_bytes += found.size_bytes
                found.rivals_bytes += each.size_bytes
            self._under_way.append(found)
        allocated, resident = allocated_bytes(), resident_bytes()
        try:
            yield found
        finally:
            grown, mapped = allocated_bytes() - allocated, resident_bytes() - resident
            with self._lock:
                self._under_way.remove(found)
            if mapped > grown + _NOT_FROM_THE_ALLOCATOR_BYTES:
                grown = mapped
            found.bytes = max(0, grown * found.size_bytes // (found.size_bytes + found.rivals_bytes))

    def exceeds(self, model_bytes: int) -> str:
        """Why a model that takes so much can never be held here; nothing when it can."""
        limit = min(self.limit_bytes, self.models_limit_bytes or self.limit_bytes)
        if model_bytes <= limit:
            return ""
        return f"it takes {_mebibytes(model_bytes)}, and all models together may take {_mebibytes(limit)}"

    def lacks(self, wanted_bytes: int, models_bytes: int, workers: Sequence[int] = ()) -> str:
        """What keeps so much more from fitting in beside models that take `models_bytes`; nothing when it fits.

        `workers` are the processes that count besides this one.
        """
        if self.models_limit_bytes and models_bytes + wanted_bytes > self.models_limit_bytes:
            return (
                f"the models may take {_mebibytes(self.models_limit_bytes)}, {_mebibytes(models_bytes)} are taken and "
                f"this one needs {_mebibytes(wanted_bytes)}"
            )
        # The cheap figure counts shared pages for each process, so it may only say yes.
        used = resident_bytes() + sum(map(resident_bytes, workers))
        if used + wanted_bytes > self.limit_bytes:
            give_back()
            used = exact_bytes() + sum(map(exact_bytes, workers))
        if used + wanted_bytes > self.limit_bytes:
            return (
                f"the models and their server may take {_mebibytes(self.limit_bytes)}, {_mebibytes(used)} are taken "
                f"and this one needs {_mebibytes(wanted_bytes)}"
            )
        return ""


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_libc = ctypes.CDLL(None)
_mallinfo2 = getattr(_libc, "mallinfo2", None)  # glibc 2.33; without it the kernel's word has to do
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2


def allocated_bytes() -> int:
    """What this process has from the allocator and has not given back to it."""
    if _mallinfo2 is None:
        return resident_bytes()
    found = _mallinfo2()
    return int(found.uordblks) + int(found.hblkhd)


def resident_bytes(pid: int | str = "self") -> int:
    with suppress(OSError, ValueError, IndexError):  # it has ended
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def exact_bytes(pid: int | str = "self") -> int:
    """With shared pages counted in shares."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def give_back() -> None:
    """What the allocator keeps of freed memory, to the system."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def size_of_files(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_size
    return total


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MiB"
