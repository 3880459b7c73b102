"""Logs: one append-only file a stream, written by the instances themselves, read through `LogReader`.

    LogReader                what control needs: groups, streams, pages of events, deletion
    ├── LogFiles             over a directory; the host's, which also opens streams and marks times
    └── RemoteLogs           over the host link, so that control never touches the files

`root/ACCOUNT/REGION/GROUP/STREAM.log` holds the bytes as they came, `STREAM.times` when they came. A file that nobody
may write any more (mode 0400) is a finished stream.
"""

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from clary.domain.clock import Clock
from clary.domain.instances import LogTarget
from clary.links import free_room
from clary.links.decoding import convert
from clary.links.hosts import HostError, HostUnavailable
from clary.links.logs import LogGroup, LogPage, LogStream
from clary.telemetry import log_names, log_times
from clary.telemetry.log_limits import drop_oldest
from clary.telemetry.log_pages import StreamFile, read_backward, read_forward

PAGE_BYTES = 1 << 20


class LogsUnavailable(Exception):
    """The logs cannot be read at the moment; asking again later is right."""


class LogReader(Protocol):
    """Reading logs, and removing them. Raises `LogsUnavailable`; may be repeated."""

    def groups(self, account: str, region: str, prefix: str = "") -> list[LogGroup]:
        """The groups that hold a stream, by name."""

    def streams(self, account: str, region: str, group: str, prefix: str = "") -> list[LogStream] | None:
        """A group's streams by name; None when there is no such group."""

    def read(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        offset: int | None = None,
        limit_bytes: int = PAGE_BYTES,
        forward: bool = True,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> LogPage | None:
        """About `limit_bytes` of events, at least one if there is any; None when there is no such stream.

        Forwards from `offset` (None: the beginning) or backwards from it (None: the end). Only events with
        start_ms ≤ time < end_ms. A last line without its newline is held back for some seconds.
        """

    def tail(self, target: LogTarget, lines: int) -> list[str]:
        """The last lines, a begun one included; none when there is no such stream."""

    def delete_group(self, account: str, region: str, group: str) -> bool:
        """Whether there was one."""

    def clear(self) -> None:
        """Removes everything."""


class LogFiles:
    """The log files below one directory. Thread-safe."""

    def __init__(self, root: Path, clock: Clock, max_bytes: int = 1 << 30) -> None:
        self._root = root
        self._clock = clock
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._watched: dict[Path, int] = {}  # path → size at its newest mark

    def open_stream(self, target: LogTarget) -> int:
        """A descriptor to append to, for an instance's stdout and stderr. Made when missing; watched from now on."""
        directory = self._directory(target.account, target.region, target.group)
        with self._lock:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            log_names.remember(directory.parent, target.group)
            path = directory / f"{log_names.remember(directory, target.stream)}.log"
            if path.exists():
                path.chmod(0o600)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
            try:
                self._mark(path)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def watch(self, target: LogTarget) -> None:
        """Marks this stream from now on, unless it is finished: for one that an earlier host opened."""
        path = self._path(target.account, target.region, target.group, target.stream)
        with self._lock:
            if path.exists() and path.stat().st_mode & stat.S_IWUSR:
                self._mark(path)

    def finish(self, target: LogTarget) -> None:
        """Nothing will be written any more: a last line without its newline counts as whole."""
        path = self._path(target.account, target.region, target.group, target.stream)
        with self._lock:
            if path.exists():
                self._mark(path)
                path.chmod(0o400)
            self._watched.pop(path, None)

    def mark(self) -> None:
        """Notes the time for what was written since the last call, and holds streams to their size. Each second."""
        with self._lock:
            for path in list(self._watched):
                try:
                    self._mark(path)
                except FileNotFoundError:
                    del self._watched[path]

    def groups(self, account: str, region: str, prefix: str = "") -> list[LogGroup]:
        found = []
        for name, directory in self._group_directories(account, region):
            if name.startswith(prefix) and (streams := list(self._streams(directory, ""))):
                created = min(stream.created_ms for stream in streams)
                found.append(LogGroup(name, created, sum(stream.stored_bytes for stream in streams)))
        return sorted(found, key=lambda group: group.name)

    def streams(self, account: str, region: str, group: str, prefix: str = "") -> list[LogStream] | None:
        directory = self._directory(account, region, group)
        if not _logs_in(directory):
            return None
        return sorted(self._streams(directory, prefix), key=lambda stream: stream.name)

    def read(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        offset: int | None = None,
        limit_bytes: int = PAGE_BYTES,
        forward: bool = True,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> LogPage | None:
        path = self._path(account, region, group, stream)
        limit_bytes = max(1, min(limit_bytes, PAGE_BYTES))
        try:
            with self._lock:
                marked = self._note_time(path)
            with StreamFile(path, self._now_ms(), known_bytes=marked) as file:
                if forward:
                    return read_forward(file, offset, limit_bytes, start_ms, end_ms)
                return read_backward(file, offset, limit_bytes, start_ms, end_ms)
        except FileNotFoundError:
            return None

    def tail(self, target: LogTarget, lines: int) -> list[str]:
        path = self._path(target.account, target.region, target.group, target.stream)
        try:
            with StreamFile(path, self._now_ms(), with_begun_line=True) as file:
                page = read_backward(file, None, 256 << 10)
        except FileNotFoundError:
            return []
        return [event.message for event in page.events][-lines:]

    def delete_group(self, account: str, region: str, group: str) -> bool:
        directory = self._directory(account, region, group)
        with self._lock:
            if not directory.exists():
                return False
            for path in [path for path in self._watched if path.parent == directory]:
                del self._watched[path]
            shutil.rmtree(directory)
            directory.with_name(f"{directory.name}.name").unlink(missing_ok=True)
        return True

    def clear(self) -> None:
        with self._lock:
            self._watched.clear()
            if self._root.exists():
                for child in self._root.iterdir():
                    shutil.rmtree(child)

    def _mark(self, path: Path) -> None:
        before = self._watched.get(path, 0)
        marked = self._note_time(path)
        self._watched[path] = size = before if marked is None else marked
        if size > self._max_bytes and size != before:
            drop_oldest(path, self._max_bytes)

    def _note_time(self, path: Path) -> int | None:
        """Marks what was written up to now; the size that is marked. Without room for a mark it is made later."""
        size = path.stat().st_size
        if self._watched.get(path) != size:
            try:
                log_times.append(path.with_suffix(".times"), size, self._now_ms())
            except OSError as error:
                if error.errno not in free_room.NO_ROOM:
                    raise
                return None
        return size

    def _streams(self, directory: Path, prefix: str) -> Iterator[LogStream]:
        for path in _logs_in(directory):
            name = log_names.decode(directory, path.name.removesuffix(".log"))
            if name is None or not name.startswith(prefix):
                continue
            try:
                with StreamFile(path, self._now_ms()) as file:
                    yield file.describe(name)
            except FileNotFoundError:
                continue  # deleted meanwhile

    def _group_directories(self, account: str, region: str) -> Iterator[tuple[str, Path]]:
        parent = self._region(account, region)
        try:
            directories = list(parent.iterdir())
        except FileNotFoundError:  # none yet, or everything was removed just now
            return
        for directory in directories:
            if directory.is_dir() and (name := log_names.decode(parent, directory.name)) is not None:
                yield name, directory

    def _region(self, account: str, region: str) -> Path:
        return self._root / log_names.encode(account) / log_names.encode(region)

    def _directory(self, account: str, region: str, group: str) -> Path:
        return self._region(account, region) / log_names.encode(group)

    def _path(self, account: str, region: str, group: str, stream: str) -> Path:
        return self._directory(account, region, group) / f"{log_names.encode(stream)}.log"

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class RemoteLogs:
    """A `LogReader` over the host link. `call` is `HostClient.call_raw`."""

    def __init__(self, call: Callable[[str, Mapping[str, object]], Any]) -> None:
        self._call = call

    def groups(self, account: str, region: str, prefix: str = "") -> list[LogGroup]:
        answer = self._ask("groups", account=account, region=region, prefix=prefix)
        return convert(answer, list[LogGroup])

    def streams(self, account: str, region: str, group: str, prefix: str = "") -> list[LogStream] | None:
        answer = self._ask("streams", account=account, region=region, group=group, prefix=prefix)
        return None if answer is None else convert(answer, list[LogStream])

    def read(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        offset: int | None = None,
        limit_bytes: int = PAGE_BYTES,
        forward: bool = True,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> LogPage | None:
        answer = self._ask(
            "read",
            account=account,
            region=region,
            group=group,
            stream=stream,
            offset=offset,
            limit_bytes=limit_bytes,
            forward=forward,
            start_ms=start_ms,
            end_ms=end_ms,
        )
        return None if answer is None else convert(answer, LogPage)

    def tail(self, target: LogTarget, lines: int) -> list[str]:
        return convert(self._ask("tail", target=target, lines=lines), list[str])

    def delete_group(self, account: str, region: str, group: str) -> bool:
        return convert(self._ask("delete_group", account=account, region=region, group=group), bool)

    def clear(self) -> None:
        self._ask("clear")

    def _ask(self, method: str, **arguments: object) -> Any:
        try:
            return self._call(f"logs_{method}", arguments)
        except (HostUnavailable, HostError) as error:
            raise LogsUnavailable(str(error)) from error


def _logs_in(directory: Path) -> list[Path]:
    try:
        return list(directory.glob("*.log"))
    except FileNotFoundError:
        return []  # deleted meanwhile


def link_operations(reader: LogReader) -> dict[str, Callable[[Mapping[str, Any]], object]]:
    """What the host answers `RemoteLogs` with: operation → function of its arguments."""

    def answer(method: Callable[..., object]) -> Callable[[Mapping[str, Any]], object]:
        return lambda arguments: method(**arguments)

    return {
        "logs_groups": answer(reader.groups),
        "logs_streams": answer(reader.streams),
        "logs_read": answer(reader.read),
        "logs_tail": lambda arguments: reader.tail(
            convert(arguments["target"], LogTarget), arguments["lines"]
        ),
        "logs_delete_group": answer(reader.delete_group),
        "logs_clear": answer(reader.clear),
    }
