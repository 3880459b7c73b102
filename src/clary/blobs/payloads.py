"""The payload files of a file system's blob store: written aside, made durable, renamed to a random id.

Which id belongs to which object is the index's affair; a payload counts only when a committed row names it. A
payload never changes once it has its place, so whoever has opened it reads it whole, even after it was removed.
"""

import errno
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from clary.blobs.base import ObjectInfo, StorageFailed
from clary.blobs.failures import translated
from clary.blobs.index import CommitUncertain

log = logging.getLogger(__name__)

_PIECE = 1 << 20
_CANNOT_SHARE = frozenset(
    {
        errno.EXDEV,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EMLINK,
        errno.ENOENT,
        errno.EBADF,
    }
)


class StagedFile:
    """A payload being written. See `blobs.base.Staged`."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.size = 0
        with translated("beginning an object"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        with translated("writing an object"):
            while view:
                written = os.write(self._fd, view)
                self.size += written
                view = view[written:]

    def append(self, source: int, length: int) -> None:
        """Appends what stands at the source descriptor's position, inside the kernel where that is possible."""
        with translated("joining the parts of an object"):
            while length:
                copied = _copy(source, self._fd, min(length, 1 << 30))
                if copied == 0:
                    raise StorageFailed("a part is shorter than the index says")
                self.size += copied
                length -= copied

    def flush(self) -> None:
        with translated("writing an object"):
            os.fsync(self._fd)

    def taken_over(self) -> None:
        """Its file has moved to where payloads stay; nothing is left to discard."""
        self.path = None

    def __enter__(self) -> "StagedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self.path is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()
            self.path = None


class OpenPayload:
    """A payload that is being read. See `blobs.base.OpenObject`."""

    def __init__(self, fd: int, payload: str, info: ObjectInfo) -> None:
        self.info = info
        self.payload = payload
        self._fd = fd

    @property
    def path(self) -> str:
        # Through the descriptor, so that it leads to this payload even when that was removed since.
        return f"/proc/self/fd/{self._fd}"

    @property
    def fd(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        with translated("reading an object"):
            return os.read(self._fd, size)

    def seek(self, offset: int) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "OpenPayload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # An answer that is never sent is never closed by anybody else.
        self.close()


class Payloads:
    """The files below one directory: `tmp/` for those under way, `data/aa/` for those that have their place."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        self._data = root / "data"
        self._aside = root / "tmp"
        self._sync = sync

    def prepare(self) -> None:
        """Makes the directories, and removes what an earlier process had not finished."""
        with translated("preparing the directory of the objects"):
            self._aside.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._data.mkdir(exist_ok=True, mode=0o700)
            for number in range(256):
                (self._data / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
            _fsync_directory(self._data)
            for path in self._aside.iterdir():
                path.unlink()

    def stage(self) -> StagedFile:
        return StagedFile(self._aside / secrets.token_hex(16))

    @contextmanager
    def placed(self, staged: StagedFile) -> Iterator[str]:
        """The durable payload's id while its row is written; without a row the payload goes again."""
        if self._sync:
            staged.flush()
        payload = secrets.token_hex(16)
        try:
            self._place(staged, payload)
            yield payload
        except CommitUncertain:
            raise  # a row may name it: the sweep at the next start decides
        except BaseException:
            self.remove([payload])
            raise

    def open(self, payload: str) -> int:
        """A descriptor. Raises FileNotFoundError when it was removed since the index was read."""
        return os.open(self._where(payload), os.O_RDONLY | os.O_CLOEXEC)

    def share(self, source: OpenPayload) -> StagedFile:
        """A staged payload with the same content: another name of the same file, or a copy where that cannot be."""
        staged = self.stage()
        try:
            with translated("copying an object"):
                if not self._link(source, staged):
                    source.seek(0)
                    staged.append(source.fd, source.info.size)
        except BaseException:
            staged.__exit__(None, None, None)
            raise
        return staged

    def remove(self, payloads: Iterable[str]) -> None:
        """Of rows that are gone. What cannot be removed now is an orphan, and the next start removes it."""
        for payload in payloads:
            try:
                self._where(payload).unlink(missing_ok=True)
            except OSError as error:
                log.warning("payload not removed", extra={"payload": payload, "error": str(error)})

    def sweep(self, named: Callable[[str], set[str]]) -> int:
        """Removes every payload that no row names; `named` gives those of the rows by the first two digits."""
        swept = 0
        with translated("sweeping the directory of the objects"):
            for shard in sorted(self._data.iterdir()):
                present = {entry.name for entry in os.scandir(shard)}
                orphans = present - named(shard.name) if present else present
                self.remove(orphans)
                swept += len(orphans)
        return swept

    def _place(self, staged: StagedFile, payload: str) -> None:
        assert staged.path is not None, "a payload is put once"
        with translated("writing an object"):
            staged.path.rename(self._where(payload))
            staged.taken_over()
            if self._sync:
                _fsync_directory(self._data / payload[:2])

    def _link(self, source: OpenPayload, staged: StagedFile) -> bool:
        assert staged.path is not None
        aside = staged.path.with_name(staged.path.name + "-link")
        try:
            os.link(self._where(source.payload), aside)
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                return False
            raise
        aside.rename(staged.path)
        staged.size = source.info.size
        return True

    def _where(self, payload: str) -> Path:
        return self._data / payload[:2] / payload


def _copy(source: int, target: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
    data = os.read(source, min(length, _PIECE))
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return len(data)


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
