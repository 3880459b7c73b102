"""When a log's text was written: marks of (size, time), a few a minute at most one a second, beside each stream.

An event's time is that of the first mark beyond its offset. Marks are only appended, and whoever shows events marks
first, so an event never changes its time: clients remember the last time they saw and go on from there.
The first mark is (0, creation).
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

_RECORD = struct.Struct(">QQ")


class Mark(NamedTuple):
    offset: int
    time_ms: int


class Marks(Sequence[Mark]):
    """The marks of one stream, read where they are needed: months of them are megabytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size // _RECORD.size
        self._newest_answer = (0, 0, 0)  # from offset, to offset, time

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Mark: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mark]: ...
    def __getitem__(self, index: int | slice) -> Mark | list[Mark]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._length))]
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(index)
        return Mark(*_RECORD.unpack(os.pread(self._descriptor, _RECORD.size, at * _RECORD.size)))

    def time_of(self, offset: int) -> int | None:
        """When the text at `offset` was there; None when no mark lies beyond it yet."""
        begin, end, time_ms = self._newest_answer  # most often the next event lies before the same mark
        if begin <= offset < end:
            return time_ms
        index = bisect_right(self, offset, key=lambda mark: mark.offset)
        if index == self._length:
            return None
        mark = self[index]
        self._newest_answer = (offset, mark.offset, mark.time_ms)
        return mark.time_ms

    def offset_at(self, time_ms: int) -> int:
        """Text from here on was written at `time_ms` or later, text before it earlier."""
        index = bisect_left(self, time_ms, key=lambda mark: mark.time_ms)
        return self[index - 1].offset if index else 0


def append(path: Path, offset: int, time_ms: int) -> None:
    """Adds a mark unless the newest one is as far; times never run backwards, whatever the clock does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        marks = Marks(descriptor)
        newest = marks[-1] if marks else None
        if newest is None:
            newest = Mark(0, time_ms)
            _write(descriptor, 0, newest)
        if offset > newest.offset:
            _write(descriptor, max(len(marks), 1), Mark(offset, max(time_ms, newest.time_ms)))
    finally:
        os.close(descriptor)


def _write(descriptor: int, index: int, mark: Mark) -> None:
    # By position, so that half a record left by a power cut is overwritten.
    os.pwrite(descriptor, _RECORD.pack(*mark), index * _RECORD.size)
