"""One stream's file, and pages of events out of it, forwards and backwards.

A stream may begin with a hole where its size limit dropped the oldest text; reading from the start then first gives
an event that says so.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from clary.links.logs import LogEvent, LogPage, LogStream
from clary.telemetry.lines import MARGIN, cut, decode, first_boundary
from clary.telemetry.log_times import Marks

BEGUN_LINE_HELD_MS = 5000

MOST_EVENTS = 10_000
"""In one page, because a page of empty lines would be mostly our own bookkeeping."""


class StreamFile:
    """An open log file with its marks. `size` is taken once, so one page sees one state; `known_bytes`, if told, is how
    much of it is looked at: what an instance writes meanwhile has no mark yet."""

    def __init__(
        self, path: Path, now_ms: int, with_begun_line: bool = False, known_bytes: int | None = None
    ) -> None:
        self._log = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._times = _open_marks(path.with_suffix(".times"))
        except BaseException:
            os.close(self._log)
            raise
        self.marks = Marks(self._times)
        status = os.fstat(self._log)
        self.size = status.st_size if known_bytes is None else min(status.st_size, known_bytes)
        self.begin = _first_data(self._log, self.size)
        self._written_ms = int(status.st_mtime * 1000)
        finished = not status.st_mode & stat.S_IWUSR
        self.is_settled = with_begun_line or finished or now_ms - self._written_ms >= BEGUN_LINE_HELD_MS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._log)
        os.close(self._times)

    def slice(self, start: int, end: int) -> bytes:
        return os.pread(self._log, max(0, min(end, self.size) - start), start)

    def boundary_from(self, offset: int) -> int:
        """The first event's beginning at or after `offset`."""
        if offset <= 0:
            return 0
        return first_boundary(self.slice(offset - 1, offset - 1 + MARGIN), offset - 1)

    def events(self, start: int, end: int, ends_event: bool) -> Iterable[LogEvent]:
        """The events from the boundary `start` on, as far as they are whole before `end`.

        `ends_event` says that `end` is a boundary too, even without a newline before it. The begun line at the
        very end comes only when it is settled.
        """
        data = self.slice(start, end)
        position = start
        for first, position in cut(data, start):
            yield self._event(first, position, data[first - start : position - start])
        rest = data[position - start :]
        at_end = position + len(rest) >= self.size
        if rest and (self.is_settled if at_end else ends_event):
            yield self._event(position, position + len(rest), rest)

    def _event(self, offset: int, next_offset: int, line: bytes) -> LogEvent:
        return LogEvent(offset, next_offset, self.time_of(offset), decode(line))

    def time_of(self, offset: int) -> int:
        time_ms = self.marks.time_of(offset)
        return self._written_ms if time_ms is None else time_ms

    def describe(self, name: str) -> LogStream:
        created = self.marks[0].time_ms if self.marks else self._written_ms
        if not self.size:
            return LogStream(name, created, None, None, 0)
        first, last = self.time_of(self.begin), self.time_of(self.size - 1)
        return LogStream(name, created, first, last, self.size - self.begin)


def read_forward(
    file: StreamFile,
    offset: int | None,
    limit_bytes: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> LogPage:
    asked = offset or 0
    high = file.size if end_ms is None else min(file.marks.offset_at(end_ms), file.size)
    position = asked
    events: list[LogEvent] = []
    if position < file.begin:
        position = file.boundary_from(file.begin)
        if start_ms is None:
            events.append(_dropped(file, asked, position))
    if start_ms is not None:
        position = max(position, file.boundary_from(file.marks.offset_at(start_ms)))
    window_end = position + limit_bytes + MARGIN
    budget = limit_bytes
    ended = window_end >= high
    for event in file.events(position, window_end, ends_event=False):
        if event.offset >= high:
            break
        if budget <= 0 or len(events) >= MOST_EVENTS:
            ended = False
            break
        budget -= event.next_offset - event.offset
        events.append(event)
    if not events:
        return LogPage((), asked, asked, ended=True)
    return LogPage(tuple(events), events[0].offset, events[-1].next_offset, ended)


def read_backward(
    file: StreamFile,
    offset: int | None,
    limit_bytes: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> LogPage:
    end = file.size if offset is None else min(offset, file.size)
    if end_ms is not None:
        end = min(end, file.boundary_from(file.marks.offset_at(end_ms)))
    low = max(file.begin, file.marks.offset_at(start_ms) if start_ms is not None else 0)
    base = max(file.begin, end - limit_bytes - MARGIN)
    start = first_boundary(file.slice(base, end), base)
    events = [event for event in file.events(start, end, ends_event=True) if event.offset >= low]
    keep = len(events)
    budget = limit_bytes
    while keep and budget > 0 and len(events) - keep < MOST_EVENTS:
        keep -= 1
        budget -= events[keep].next_offset - events[keep].offset
    kept = events[keep:]
    if not kept:
        return LogPage((), end, end, ended=True)
    return LogPage(tuple(kept), kept[0].offset, kept[-1].next_offset, ended=keep == 0 and base <= low)


def _dropped(file: StreamFile, offset: int, next_offset: int) -> LogEvent:
    message = f"[The oldest {next_offset} bytes of this log were dropped: it reached its size limit.]"
    return LogEvent(offset, next_offset, file.time_of(next_offset), message)


def _open_marks(path: Path) -> int:
    """Makes no file where there is none: whoever deletes the stream just now would find its directory not empty."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _first_data(descriptor: int, size: int) -> int:
    """The end of the hole that the size limit left at the beginning; 0 without one."""
    if not size:
        return 0
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:
        return 0  # nothing but a hole, or a file system that cannot tell
