"""Where one log event ends and the next begins, and what its bytes say.

An event ends after its newline. Text without one is cut at absolute multiples of LONGEST_EVENT, so that whether a
position is a boundary can be told from the bytes just before it, however long the line is: reading forwards,
backwards and from any token cuts alike.
"""

from collections.abc import Iterator

LONGEST_EVENT = 256 << 10

MARGIN = 2 * LONGEST_EVENT
"""No event is longer than this, so this much text before a position always holds a boundary."""


def cut(data: bytes, base: int) -> Iterator[tuple[int, int]]:
    """The complete events in `data`, which begins at the boundary `base` of its stream, as (start, end) offsets."""
    start = 0
    while start < len(data):
        forced = _first_forced(base + start) - base
        newline = data.find(b"\n", start, forced)
        end = newline + 1 if newline >= 0 else forced
        if end > len(data):
            return
        yield base + start, base + end
        start = end


def first_boundary(data: bytes, base: int) -> int:
    """The first offset in `data` that is surely a boundary, whatever stood before it."""
    if base == 0:
        return 0
    newline = data.find(b"\n")
    after_newline = base + newline + 1 if newline >= 0 else base + len(data)
    return min(after_newline, _first_forced(base))


def decode(line: bytes) -> str:
    """The message of an event: printable text whatever was written, without its line end."""
    text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
    return text.translate(_CONTROLS)


def _first_forced(line_start: int) -> int:
    """The first multiple that has LONGEST_EVENT bytes of the line before it."""
    return -(-line_start // LONGEST_EVENT) * LONGEST_EVENT + LONGEST_EVENT


# A terminal's or a parser's control characters out of somebody's binary output; tab, carriage return (progress
# bars) and escape (colours) are ordinary in logs.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127) if chr(code) not in "\t\r\x1b"}
