"""Unpacks what strangers packed: model archives, streamed, with nothing outside the target ever touched.

Runs as a script in a process of its own (standard library only) with its memory limited, because a decompressor
is the stranger's code in all but name; `unpack` is the same as a function. Refused are absolute paths, `..`,
links that lead out of the target or through each other, devices, pipes, and more members, bytes or compression
than the limits allow. Setuid and other special bits are dropped, owners are ignored.

How it stays inside: every path component is made or opened relative to its parent's descriptor without following
links, so even a member that goes through a link unpacked before it cannot leave. Nothing is overwritten: a second
member of the same name replaces the first by unlinking it.

As a script, `archives.py CONTROL_FD`, it unpacks one archive after the other. On the control socket come messages
`{"target": …, "max_members": …, "max_bytes": …, "max_ratio": …}` with the archive's descriptor; the answers are
`{"ok": {"members": …, "size_bytes": …}}` or `{"error": code, "message": …}`. It ends when the socket closes, and
after an archive that it refused: whatever that one did to it is gone with it.
"""

# Everything here goes by descriptors.
# ruff: noqa: PTH117, PTH118, PTH123

import errno
import json
import os
import resource
import signal
import socket
import stat
import sys
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, cast

CHUNK = 1 << 20
RATIO_FREE_BYTES = 64 << 20
"""Below this much, no ratio is too high: a small file of zeros harms nobody."""

LONGEST_NAME = 4096
LONGEST_MESSAGE = 1 << 16
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ArchiveInvalid(Exception):
    """The archive is refused; the message names the member and the reason."""


class OutOfSpace(Exception):
    """There was no room for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_members: int
    max_bytes: int
    max_ratio: float


@dataclass(frozen=True, slots=True)
class Unpacked:
    members: int
    size_bytes: int


def unpack(archive: IO[bytes], target: str, limits: Limits) -> Unpacked:
    """Unpacks into the existing, empty directory `target`. Raises `ArchiveInvalid` or `OutOfSpace`.

    What it wrote before it refused stays there: the caller throws the directory away.
    """
    counted = _Counted(archive)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Unpacking(root, limits, counted).run()
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise OutOfSpace(str(error)) from error
        raise
    finally:
        os.close(root)


class _Counted:
    """The archive's bytes on their way to the decompressor, counted for the ratio."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        return data


class _Unpacking:
    def __init__(self, root: int, limits: Limits, source: _Counted) -> None:
        self._root = root
        self._limits = limits
        self._source = source
        self._members = 0
        self._written = 0
        self._links: list[tuple[str, list[str], str]] = []

    def run(self) -> Unpacked:
        try:
            # "r|*" streams: nothing is read twice, and the archive need not be a file.
            with tarfile.open(fileobj=cast("IO[bytes]", self._source), mode="r|*", bufsize=64 << 10) as tar:
                for member in tar:
                    self._member(tar, member)
                    tar.members = []  # type: ignore[attr-defined]  # the tar file remembers every member otherwise
        except (tarfile.TarError, EOFError, zlib.error, _LzmaError, ValueError) as error:
            raise ArchiveInvalid(self._unreadable(error)) from error
        self._place_links()
        return Unpacked(self._members, self._written)

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._members += 1
        if self._members > self._limits.max_members:
            raise ArchiveInvalid(f"the archive has more than {self._limits.max_members} members")
        parts = _parts(member)
        if member.isdir():
            os.close(self._directory(parts, member))
        elif member.isreg() or member.issparse():
            self._file(tar, member, parts)
        elif member.issym():
            self._links.append((member.name, parts, member.linkname))
        elif member.islnk():
            self._hard_link(member, parts)
        else:
            raise ArchiveInvalid(
                f"{_shown(member.name)} is {_kind(member)}, and only files may be in an archive"
            )

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str]) -> None:
        if member.size > self._limits.max_bytes - self._written:
            raise ArchiveInvalid(
                f"with {_shown(member.name)} it unpacks to more than {self._limits.max_bytes} bytes"
            )
        parent, name = self._parent(parts, member)
        try:
            mode = 0o755 if member.mode & 0o111 else 0o644
            descriptor = _create(name, parent, mode, member)
        finally:
            os.close(parent)
        source = tar.extractfile(member)
        with open(descriptor, "wb", buffering=0) as file:
            while source is not None and (data := source.read(CHUNK)):
                self._count(len(data), member)
                _write_all(file.fileno(), data)

    def _count(self, size: int, member: tarfile.TarInfo) -> None:
        self._written += size
        if self._written > self._limits.max_bytes:
            raise ArchiveInvalid(
                f"with {_shown(member.name)} it unpacks to more than {self._limits.max_bytes} bytes"
            )
        if self._written > RATIO_FREE_BYTES and self._written > self._source.size * self._limits.max_ratio:
            raise ArchiveInvalid(
                f"{_shown(member.name)} unpacks to more than {self._limits.max_ratio:g} times its packed size"
            )

    def _hard_link(self, member: tarfile.TarInfo, parts: list[str]) -> None:
        """A second name for a file unpacked before, and for nothing else."""
        linked = tarfile.TarInfo(member.linkname)
        target = f"{_shown(member.name)} links to {_shown(member.linkname)}"
        try:
            from_parent, from_name = self._parent(_parts(linked), linked, make=False)
        except FileNotFoundError:
            raise ArchiveInvalid(f"{target}, which does not stand before it") from None
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"{target}, and {error}") from None
        try:
            parent, name = self._parent(parts, member)
            try:
                found = os.stat(from_name, dir_fd=from_parent, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    raise ArchiveInvalid(f"{target}, which is no file")
                _make_room(name, parent, member)
                os.link(from_name, name, src_dir_fd=from_parent, dst_dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                raise ArchiveInvalid(f"{target}, which does not stand before it") from None
            finally:
                os.close(parent)
        finally:
            os.close(from_parent)

    def _place_links(self) -> None:
        """Symbolic links come last, so that no member was ever written through one."""
        for name, parts, target in self._links:
            member = tarfile.TarInfo(name)
            _check_link(name, parts, target)
            parent, last = self._parent(parts, member)
            try:
                _make_room(last, parent, member)
                os.symlink(target, last, dir_fd=parent)
            finally:
                os.close(parent)
        for name, parts, _ in self._links:
            self._check_leads_inside(name, parts)

    def _check_leads_inside(self, name: str, parts: list[str]) -> None:
        """Follows the finished link with the kernel: chains of links that are harmless singly may lead out."""
        base = os.path.realpath(f"/proc/self/fd/{self._root}")
        end = os.path.realpath(os.path.join(base, *parts))
        if end != base and not end.startswith(base + os.sep):
            raise ArchiveInvalid(f"{_shown(name)} links out of the archive")

    def _parent(self, parts: list[str], member: tarfile.TarInfo, make: bool = True) -> tuple[int, str]:
        if not parts:
            raise ArchiveInvalid(f"{_shown(member.name)} has no name of its own")
        return self._directory(parts[:-1], member, make), parts[-1]

    def _directory(self, parts: list[str], member: tarfile.TarInfo, make: bool = True) -> int:
        """An open descriptor of the directory, made where it is missing, reached without following a link."""
        current = os.dup(self._root)
        for part in parts:
            try:
                if make:
                    with suppress(FileExistsError):  # whatever exists, the open below judges it
                        os.mkdir(part, 0o755, dir_fd=current)
                deeper = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current
                )
            except OSError as error:
                if isinstance(error, FileNotFoundError) or error.errno in OUT_OF_SPACE:
                    raise
                raise ArchiveInvalid(
                    f"{_shown(member.name)} goes through {part!r}, which is no directory"
                ) from error
            finally:
                os.close(current)
            current = deeper
        return current

    def _unreadable(self, error: Exception) -> str:
        after = f" after {self._members} members" if self._members else ""
        return f"it is no readable tar archive{after}: {error or type(error).__name__}"


def _parts(member: tarfile.TarInfo) -> list[str]:
    """A member's path in components that all name something."""
    name = member.name
    if name.startswith("/") or os.path.isabs(name):
        raise ArchiveInvalid(f"{_shown(name)} is an absolute path")
    if "\0" in name or len(name) > LONGEST_NAME:
        raise ArchiveInvalid(f"{_shown(name)} is no usable path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveInvalid(f"{_shown(name)} leads out of the archive with '..'")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise ArchiveInvalid(f"{_shown(name)} is no usable path: a part of it is longer than 255 bytes")
    return parts


def _check_link(name: str, parts: list[str], target: str) -> None:
    if not target or "\0" in target or len(target) > LONGEST_NAME:
        raise ArchiveInvalid(f"{_shown(name)} is a link to nothing usable")
    depth = len(parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            raise ArchiveInvalid(f"{_shown(name)} links out of the archive, to {_shown(target)}")
    if target.startswith("/"):
        raise ArchiveInvalid(f"{_shown(name)} links out of the archive, to {_shown(target)}")


def _create(name: str, parent: int, mode: int, member: tarfile.TarInfo) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _make_room(name, parent, member)
    return os.open(name, flags, mode, dir_fd=parent)


def _make_room(name: str, parent: int, member: tarfile.TarInfo) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        raise ArchiveInvalid(f"{_shown(member.name)} is both a directory and something else") from error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _kind(member: tarfile.TarInfo) -> str:
    if member.isfifo():
        return "a pipe"
    return "a device" if member.isdev() else f"of type {member.type!r}"


def _shown(name: str) -> str:
    """A member's name as a person may read it: printable, not endless."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _limit_memory(size_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(control: socket.socket) -> None:
    """Until the other end closes, or an archive is refused."""
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory(1 << 30)
    answer: dict[str, object] = {"ok": {}}
    while "ok" in answer:
        message, descriptors, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, 1)
        if not message:
            return
        answer = _run(json.loads(message), *descriptors)
        try:
            control.send(json.dumps(answer).encode())
        except BrokenPipeError:  # the host has ended meanwhile, or does not wait any more
            return


def _run(wanted: dict[str, str], archive: int) -> dict[str, object]:
    limits = Limits(int(wanted["max_members"]), int(wanted["max_bytes"]), float(wanted["max_ratio"]))
    try:
        with open(archive, "rb") as file:
            done = unpack(file, wanted["target"], limits)
    except ArchiveInvalid as error:
        return {"error": "ArtifactInvalid", "message": str(error)}
    except OutOfSpace as error:
        return {"error": "DiskFull", "message": str(error)}
    except MemoryError:
        return {"error": "ArtifactInvalid", "message": "unpacking it takes more than 1 GiB of memory"}
    except Exception as error:  # noqa: BLE001  the end of a process: who asked is told
        return {
            "error": "ArtifactInvalid",
            "message": f"the unpacker failed: {type(error).__name__}: {error}",
        }
    return {"ok": {"members": done.members, "size_bytes": done.size_bytes}}


try:
    from lzma import LZMAError as _LzmaError
except ImportError:  # a Python built without it: xz archives are unreadable there, and tarfile says so
    _LzmaError = EOFError  # type: ignore[misc,assignment]

if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _serve(_control)
