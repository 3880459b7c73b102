"""What control asks the host about logs, and what comes back. Never a path: the host finds the files.

Offsets are bytes from the stream's beginning. They stay valid for ever: text is only ever appended, and when a size
limit drops the oldest text the offsets of the rest do not move. Times are milliseconds since the epoch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line, from `offset` up to `next_offset`, the newline included in between but not in the message."""

    offset: int
    next_offset: int
    timestamp_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events in the order they were written; reading on begins at `next_offset`, reading back at `offset`.

    `ended`: nothing more stands in this direction at the moment.
    """

    events: tuple[LogEvent, ...]
    offset: int
    next_offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class LogGroup:
    name: str
    created_ms: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class LogStream:
    """`first_ms` and `last_ms` are None while nothing was written."""

    name: str
    created_ms: int
    first_ms: int | None
    last_ms: int | None
    stored_bytes: int
