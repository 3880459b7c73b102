"""The data instances need before they start, fetched from the blob store and cached by content.

    <data>/artifacts/<key>/       what an archive unpacked to, or the objects below a prefix; read-only
    <data>/artifacts/.part-*      under way; thrown away when the host starts

An entry appears by a rename, so a finished one is whole. Instances reach it through a link, not a copy: two
hundred instances of one model share its pages. Entries made before the machine's last start are dropped, because
nothing here is flushed to the disk.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from clary.blobs.base import (
    BlobError,
    BlobReader,
    Location,
    NoSuchBucket,
    NoSuchKey,
    ObjectInfo,
    OpenObject,
    OutOfSpace,
    parse_uri,
)
from clary.domain.clock import Clock
from clary.domain.instances import Artifact
from clary.host import archives
from clary.host.failures import Refused
from clary.host.sizes import size_bytes
from clary.host.unpacking import Cancelled, Unpackable, Unpacker

POLL_S = 0.05
MOST_LOOKS = 10
UNPACKING_AT_ONCE = 4
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class _Changed(Exception):
    """What is below a prefix is another than what was listed."""


class Artifacts:
    """The cache. Thread-safe; the same content is fetched once however many ask for it."""

    def __init__(
        self,
        root: Path,
        blobs: BlobReader,
        limits: archives.Limits,
        clock: Clock,
        unpacker: Unpacker | None = None,
    ) -> None:
        self._root = root
        self._blobs = blobs
        self._limits = limits
        self._unpacker = unpacker or Unpacker(clock)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(UNPACKING_AT_ONCE)
        _forget_what_is_not_whole(root)

    def obtain(self, artifact: Artifact, timeout_s: float, is_cancelled: Callable[[], bool]) -> Path:
        """Where the content lies: a directory, or for an object a file. Raises `Refused` or `Cancelled`."""
        location = parse_uri(artifact.uri)
        if location is None:
            raise Refused("ArtifactInvalid", f"{artifact.uri} is no s3:// address")
        try:
            if artifact.kind == "prefix":
                return self._prefix(location, artifact, is_cancelled)
            return self._object(location, artifact, timeout_s, is_cancelled)
        except (NoSuchBucket, NoSuchKey) as error:
            raise Refused("ArtifactMissing", f"there is nothing at {artifact.uri}") from error
        except OutOfSpace as error:
            raise _disk_full(artifact, str(error)) from error
        except BlobError as error:
            raise Refused("ArtifactInvalid", f"{artifact.uri} could not be read: {error}") from error
        except OSError as error:
            if error.errno in archives.OUT_OF_SPACE:
                raise _disk_full(artifact, str(error)) from error
            raise

    def size_bytes(self) -> int:
        return size_bytes(self._root)

    def _object(
        self, location: Location, artifact: Artifact, timeout_s: float, is_cancelled: Callable[[], bool]
    ) -> Path:
        # Opened before it is asked what it is: it may be replaced at any moment.
        with self._blobs.open(location.bucket, location.key) as source:
            key = _key(artifact.kind, [source.info])
            with self._once(key, is_cancelled):
                target = self._root / key
                if not target.exists():
                    with self._part(key) as part:
                        if artifact.kind == "archive":
                            self._unpack(source, artifact, part, timeout_s, is_cancelled)
                        else:
                            _copy(source, part / "object", is_cancelled)
                        let_read(part)
                        part.rename(target)
        return target / "object" if artifact.kind == "object" else target

    def _prefix(self, location: Location, artifact: Artifact, is_cancelled: Callable[[], bool]) -> Path:
        for _ in range(MOST_LOOKS):
            with suppress(_Changed):
                return self._prefix_as_listed(location, artifact, is_cancelled)
        raise Refused(
            "ArtifactInvalid",
            f"what lies below {artifact.uri} changes all the time: try again when nothing is written there",
        )

    def _prefix_as_listed(
        self, location: Location, artifact: Artifact, is_cancelled: Callable[[], bool]
    ) -> Path:
        """Raises `_Changed` when it is no longer what it was when it was listed."""
        found = list(self._below(location))
        if not found:
            raise Refused("ArtifactMissing", f"there is nothing below {artifact.uri}")
        key = _key(f"prefix {location.key}", found)
        with self._once(key, is_cancelled):
            target = self._root / key
            if not target.exists():
                with self._part(key) as part:
                    for info in found:
                        name = info.key.removeprefix(location.key).lstrip("/")
                        path = _inside(part, name, artifact)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with self._listed(info) as source:
                            _copy(source, path, is_cancelled)
                    let_read(part)
                    part.rename(target)
        return target

    def _below(self, location: Location) -> Iterator[ObjectInfo]:
        after: str | None = ""
        while after is not None:
            page = self._blobs.objects(location.bucket, prefix=location.key, start_after=after)
            yield from (info for info in page.objects if not info.key.endswith("/"))
            after = page.next

    def _listed(self, info: ObjectInfo) -> OpenObject:
        try:
            source = self._blobs.open(info.bucket, info.key)
        except NoSuchKey as error:
            raise _Changed from error
        if source.info.etag != info.etag:
            source.close()
            raise _Changed
        return source

    def _unpack(
        self,
        source: OpenObject,
        artifact: Artifact,
        target: Path,
        timeout_s: float,
        is_cancelled: Callable[[], bool],
    ) -> None:
        with self._slots:
            try:
                self._unpacker.unpack(source.path, target, self._limits, timeout_s, is_cancelled)
            except Unpackable as error:
                if error.code == "DiskFull":
                    raise _disk_full(artifact, str(error)) from error
                raise Refused(error.code, f"{artifact.uri} could not be unpacked: {error}") from error

    @contextmanager
    def _once(self, key: str, is_cancelled: Callable[[], bool]) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=POLL_S):
            if is_cancelled():
                raise Cancelled
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _part(self, key: str) -> Iterator[Path]:
        """A directory to fill. Whoever does not rename it away loses it."""
        part = Path(tempfile.mkdtemp(prefix=f".part-{key[:8]}-", dir=self._root))
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _copy(source: OpenObject, target: Path, is_cancelled: Callable[[], bool]) -> None:
    with target.open("xb") as file:
        while data := source.read(1 << 20):
            file.write(data)
            if is_cancelled():
                raise Cancelled


def _key(kind: str, infos: list[ObjectInfo]) -> str:
    digest = sha256(kind.encode("utf-8", "surrogateescape"))
    for info in infos:
        # The name counts below a prefix only; two archives of the same content are the same archive.
        name = info.key if kind.startswith("prefix") else ""
        digest.update(f"\0{name}\0{info.etag}\0{info.size}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:40]


def _inside(root: Path, name: str, artifact: Artifact) -> Path:
    """A key as a path below `root`. Keys are any text; only those that are plain paths can become files."""
    parts = name.split("/")
    if (
        not name
        or any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts)
        or "\0" in name
    ):
        raise Refused("ArtifactInvalid", f"the key {name!r} below {artifact.uri} cannot be a file's name")
    return root.joinpath(*parts)


def let_read(part: Path) -> None:
    """Instances with a uid of their own must read what root has unpacked. Nobody else gets this far down."""
    for folder, _, names in os.walk(part):
        os.chmod(folder, 0o755)  # noqa: PTH101
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444)


def _disk_full(artifact: Artifact, message: str) -> Refused:
    return Refused(
        "DiskFull",
        f"there is no room on the disk for {artifact.uri} ({message}): free some space, then try again",
    )


def _forget_what_is_not_whole(root: Path) -> None:
    """Parts of an earlier host, and everything from before the machine's last start."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    boot = BOOT_ID.read_text()
    note = root / ".boot-id"
    same_boot = note.exists() and note.read_text() == boot
    for path in root.iterdir():
        if path.is_dir() and (path.name.startswith(".part-") or not same_boot):
            _remove(path)
    note.write_text(boot)


def _remove(folder: Path) -> None:
    """A process that an earlier host had unpack into it may not have noticed yet that nobody waits."""
    for _ in range(MOST_LOOKS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
