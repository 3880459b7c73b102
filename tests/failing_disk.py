"""A disk that is full from its n-th write on: below one directory, for Python's writes and for SQLite's alike.

What takes room is counted: files opened for writing, writes, allocations, renames, new directories and links, fsync.
Python's are caught where they are called; SQLite's at the system calls of its VFS, which it lets be replaced for this
very purpose. Its fsync is not among them.
"""

import _sqlite3
import builtins
import ctypes
import errno
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_OPENS_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_BY_DESCRIPTOR = ("write", "fsync", "fdatasync", "posix_fallocate", "ftruncate")
_BY_PATH = {"rename": 1, "replace": 1, "link": 1, "symlink": 1, "mkdir": 0}  # where the new name stands
_PAGE = 4096
_NAMES = ("rename", "replace", "link")
_OFFSET, _SIZE = ctypes.c_int64, ctypes.c_size_t
_IN_SQLITE = {
    "write": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, _SIZE),
    "pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, _SIZE, _OFFSET),
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, _SIZE, _OFFSET),
    "ftruncate": (ctypes.c_int, ctypes.c_int, _OFFSET),
    "fallocate": (ctypes.c_int, ctypes.c_int, _OFFSET, _OFFSET),
    "open": (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
}


@dataclass
class Attempt:
    """What was written inside one `full_at`, in order, and what of it failed."""

    at: int
    lasting: bool
    in_place: bool = False
    given_back: int = 0  # bytes
    writes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def was_hit(self) -> bool:
        return bool(self.failed)


class FailingDisk:
    """Made once for a directory, by the fixture `failing_disk`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve()) + os.sep
        self._attempt: Attempt | None = None
        self._lock = threading.Lock()

    @contextmanager
    def full_at(self, at: int, *, lasting: bool, in_place: bool = False) -> Iterator[Attempt]:
        """Inside, the write numbered `at` (from 1) fails with ENOSPC; `lasting`: and all that follow.

        `in_place`: what a file has blocks for may be written over, a file that is there may get another name in a
        directory that is there, what was written reaches the disk, and nothing is said to be free. What Python removes
        gives its blocks to whoever writes next.
        """
        self._attempt = attempt = Attempt(at, lasting, in_place)
        try:
            yield attempt
        finally:
            self._attempt = None

    @property
    def is_in_place(self) -> bool:
        return self._attempt is not None and self._attempt.in_place

    def must_fail(self, what: str, path: str) -> bool:
        with self._lock:
            attempt = self._attempt
            if attempt is None or not path.startswith(self._root):
                return False
            attempt.writes.append(f"{what} {path.removeprefix(self._root)}")
            number = len(attempt.writes)
            if number != attempt.at and not (attempt.lasting and number > attempt.at):
                return False
            attempt.failed.append(attempt.writes[-1])
            return True

    def fits(self, end: int, has: int, path: str) -> bool:
        """In place: whether a write up to `end` finds room, in its file's own blocks or in what was given back."""
        with self._lock:
            attempt = self._attempt
            if attempt is None or not attempt.in_place:
                return False
            if end <= has or not path.startswith(self._root):
                return True
            if end - has > attempt.given_back:
                return False
            attempt.given_back -= end - has
            return True

    def give_back(self, path: str, size: int) -> None:
        with self._lock:
            if self._attempt is not None and path.startswith(self._root):
                self._attempt.given_back += size

    def check(self, what: str, path: str) -> None:
        if self.is_in_place and (what in ("fsync", "fdatasync") or what in _NAMES):
            return
        if self.must_fail(what, path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@contextmanager
def installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    """A failing disk below `root`; skips where SQLite's system calls cannot be had."""
    disk = FailingDisk(root)
    with monkeypatch.context() as patched:
        _catch_python(disk, patched)
        with _caught_sqlite(disk):
            yield disk


def _catch_python(disk: FailingDisk, patched: pytest.MonkeyPatch) -> None:
    for name in _BY_DESCRIPTOR:
        patched.setattr(os, name, _in_place(disk, name, getattr(os, name)))
    for name, place in _BY_PATH.items():
        patched.setattr(os, name, _checking(disk, name, getattr(os, name), _argument(place)))
    patched.setattr(
        os,
        "copy_file_range",
        _checking(disk, "copy_file_range", os.copy_file_range, lambda args: _path_of(args[1])),
    )
    removes = os.unlink

    def unlink(path: Any, *args: Any, **more: Any) -> None:
        found = os.lstat(path) if disk.is_in_place and not more else None
        removes(path, *args, **more)
        if found is not None and found.st_nlink == 1:
            disk.give_back(_absolute(path), found.st_blocks * 512)

    patched.setattr(os, "unlink", unlink)
    asks = os.statvfs
    patched.setattr(os, "statvfs", lambda path: _Full() if disk.is_in_place else asks(path))
    opens = os.open

    def open_descriptor(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & _OPENS_FOR_WRITING and not (disk.is_in_place and Path(path).exists()):
            disk.check("open", _absolute(path))
        return opens(path, flags, *args, **more)

    patched.setattr(os, "open", open_descriptor)
    opens_file = io.open

    def open_file(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return opens_file(file, mode, *args, **more)
        disk.check("open", _absolute(file))
        return _File(disk, _absolute(file), opens_file(file, mode, *args, **more))

    patched.setattr(io, "open", open_file)
    patched.setattr(builtins, "open", open_file)


@dataclass(frozen=True)
class _Full:
    """What `statvfs` says of a full disk, as far as anybody asks."""

    f_bavail: int = 0
    f_bfree: int = 0
    f_frsize: int = 4096
    f_blocks: int = 1 << 20


class _File:
    """A file object whose writes are counted."""

    def __init__(self, disk: FailingDisk, path: str, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def write(self, data: Any) -> Any:
        self._disk.check("write", self._path)
        return self._file.write(data)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _checking(
    disk: FailingDisk, name: str, call: Callable[..., Any], path: Callable[[tuple[Any, ...]], str]
) -> Callable[..., Any]:
    def checked(*args: Any, **more: Any) -> Any:
        disk.check(name, path(args))
        return call(*args, **more)

    return checked


def _in_place(disk: FailingDisk, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    checked = _checking(disk, name, call, lambda args: _path_of(args[0]))

    def let_through(*args: Any) -> Any:
        return call(*args) if disk.is_in_place and _fits(disk, name, args) else checked(*args)

    return let_through


def _fits(disk: FailingDisk, name: str, args: tuple[Any, ...]) -> bool:
    """Whether one of Python's calls finds room."""
    found = os.fstat(args[0])
    if not stat.S_ISREG(found.st_mode) or name in ("fsync", "fdatasync"):
        return True
    if name == "write":
        end = os.lseek(args[0], 0, os.SEEK_CUR) + len(args[1])
    else:
        end = sum(args[1:3])  # an offset and a length, or a length
    return disk.fits(end, _has(found), _path_of(args[0]))


def _has(found: os.stat_result) -> int:
    """Bytes that may be written without more room. What is held ready beyond a file's end is not its own."""
    return min(found.st_blocks * 512, -(-found.st_size // _PAGE) * _PAGE)


def _argument(place: int) -> Callable[[tuple[Any, ...]], str]:
    return lambda args: _absolute(args[place])


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, as far as version 3 of it."""

    _fields_ = [
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("zName", ctypes.c_char_p),
        ("pAppData", ctypes.c_void_p),
        *((f"x{number}", ctypes.c_void_p) for number in range(13)),
        ("xSetSystemCall", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)),
        ("xGetSystemCall", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)),
    ]


@contextmanager
def _caught_sqlite(disk: FailingDisk) -> Iterator[None]:
    try:
        find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    except (AttributeError, OSError):
        pytest.skip("the SQLite of this Python hides its VFS")
    find.restype, find.argtypes = ctypes.POINTER(_Vfs), [ctypes.c_char_p]
    vfs = find(None)
    kept = []
    for name, (result, *arguments) in _IN_SQLITE.items():
        original = vfs.contents.xGetSystemCall(vfs, name.encode())
        if original:
            kind = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
            callback = kind(_failing(disk, name, kind(original)))
            kept.append(callback)  # SQLite keeps the bare address
            vfs.contents.xSetSystemCall(vfs, name.encode(), ctypes.cast(callback, ctypes.c_void_p))
    try:
        yield
    finally:
        for name in _IN_SQLITE:
            vfs.contents.xSetSystemCall(vfs, name.encode(), None)


def _failing(disk: FailingDisk, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """The system call, in C's manners: -1 and errno."""

    def call(*args: Any) -> Any:
        if name == "open":
            counts, path = bool(args[1] & os.O_CREAT), args[0].decode()
            counts = counts and not Path(path).exists()  # what is there takes no room
        else:
            path = _path_of(args[0])
            counts = not (disk.is_in_place and _has_room(disk, name, args, path))
        if counts and disk.must_fail(f"sqlite {name}", path):
            ctypes.set_errno(errno.ENOSPC)
            return errno.ENOSPC if name == "fallocate" else -1
        return original(*args)

    return call


def _has_room(disk: FailingDisk, name: str, args: tuple[Any, ...], path: str) -> bool:
    found = os.fstat(args[0])
    if name == "ftruncate":
        return bool(args[1] <= found.st_size)
    return name.startswith("pwrite") and disk.fits(args[3] + args[2], _has(found), path)


def _path_of(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return ""


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 -- a link's own name, not where it leads
