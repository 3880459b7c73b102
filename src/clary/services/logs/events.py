"""GetLogEvents and FilterLogEvents.

A token of GetLogEvents is a direction and a byte offset (`f/1234`, `b/1234`), so asking again is free and nothing is
remembered. FilterLogEvents shows the events of many streams in one order, (time, stream, offset); its token is the
last place in that order that was looked at.
"""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from clary.domain.faults import not_supported
from clary.links.logs import LogEvent, LogPage
from clary.services import page_tokens
from clary.services.logs import patterns
from clary.services.logs.requests import group_name, invalid, no_group, no_stream, reading
from clary.telemetry.logs import LogReader
from clary.wire.operations import Call, operation
from clary.wire.shapes import logs as shapes

MOST_EVENTS = 10_000
MOST_BYTES = 1 << 20
MOST_SCANNED_BYTES = 16 << 20
MERGE_PAGE_BYTES = 128 << 10

Place = tuple[int, str, int]
"""Where an event stands among those of all streams: time, stream, offset."""


class Events:
    def __init__(self, logs: LogReader) -> None:
        self._logs = logs

    @operation("GetLogEvents")
    def get_log_events(self, call: Call, request: shapes.GetLogEventsRequest) -> shapes.GetLogEventsResponse:
        group = group_name(call, request.get("logGroupName"), request.get("logGroupIdentifier"))
        forward, offset = _direction(request)
        stream = _Stream(self._logs, call, group, request["logStreamName"], request)
        with reading():
            page = stream.page(offset, forward, request.get("limit", MOST_EVENTS))
            if page is None:
                raise (
                    no_group()
                    if self._logs.streams(call.account, call.region, group) is None
                    else no_stream()
                )
        return {
            "events": [
                {
                    "timestamp": event.timestamp_ms,
                    "message": event.message,
                    "ingestionTime": event.timestamp_ms,
                }
                for event in page.events
            ],
            "nextForwardToken": f"f/{page.next_offset}",
            "nextBackwardToken": f"b/{page.offset}",
        }

    @operation("FilterLogEvents")
    def filter_log_events(
        self, call: Call, request: shapes.FilterLogEventsRequest
    ) -> shapes.FilterLogEventsResponse:
        if not request.get("startFromHead", True):
            raise not_supported("FilterLogEvents from the end (startFromHead false)")
        group = group_name(call, request.get("logGroupName"), request.get("logGroupIdentifier"))
        matches = patterns.parse(request.get("filterPattern", ""))
        query = {key: value for key, value in request.items() if key not in ("nextToken", "limit")}
        after = _place(request.get("nextToken"), query)
        with reading():
            names = self._stream_names(call, group, request)
            streams = [_Stream(self._logs, call, group, name, request) for name in names]
            merged = heapq.merge(*(stream.events(after) for stream in streams), key=lambda found: found[0])
            taken = _take(merged, matches, request.get("limit", MOST_EVENTS))
        response: shapes.FilterLogEventsResponse = {
            "events": [_filtered(place, event) for place, event in taken.found],
            "searchedLogStreams": [],
        }
        if taken.more_after is not None:
            response["nextToken"] = page_tokens.make(query, taken.more_after)
        return response

    def _stream_names(self, call: Call, group: str, request: shapes.FilterLogEventsRequest) -> list[str]:
        wanted = request.get("logStreamNames")
        if wanted is not None and "logStreamNamePrefix" in request:
            raise invalid("logStreamNamePrefix and logStreamNames are mutually exclusive parameters.")
        prefix = request.get("logStreamNamePrefix", "")
        found = self._logs.streams(call.account, call.region, group, prefix)
        if found is None:
            raise no_group()
        # Streams that ended before the time asked for need not be opened.
        since = request.get("startTime", 0)
        names = [stream.name for stream in found if stream.last_ms is None or stream.last_ms >= since]
        if wanted is None:
            return names
        if not {stream.name for stream in found}.issuperset(wanted):
            raise no_stream()
        return [name for name in names if name in wanted]


class _Stream:
    """One stream as a request sees it: its time span applied, empty lines left out (the API has no empty messages)."""

    def __init__(
        self,
        logs: LogReader,
        call: Call,
        group: str,
        name: str,
        request: shapes.GetLogEventsRequest | shapes.FilterLogEventsRequest,
    ) -> None:
        self._logs = logs
        self._call = call
        self._group = group
        self._name = name
        self._start_ms = request.get("startTime")
        self._end_ms = request.get("endTime")

    def page(self, offset: int | None, forward: bool, most: int) -> LogPage | None:
        """At most `most` events in the order written; reads on through empty lines until there is one."""
        while (page := self._read(offset, forward, MOST_BYTES, self._start_ms)) is not None:
            whole = [event for event in page.events if event.message]
            kept = whole[:most] if forward else whole[-most:]
            if kept or page.ended:
                return _narrowed(page, whole, kept, forward)
            offset = page.next_offset if forward else page.offset
        return None

    def events(self, after: Place | None) -> Iterator[tuple[Place, LogEvent]]:
        """All events beyond `after`, in order."""
        start_ms, offset = self._begin(after)
        while (page := self._read(offset, True, MERGE_PAGE_BYTES, start_ms)) is not None:
            for event in page.events:
                place = (event.timestamp_ms, self._name, event.offset)
                if event.message and (after is None or place > after):
                    yield place, event
            if page.ended:
                return
            offset = page.next_offset

    def _begin(self, after: Place | None) -> tuple[int | None, int | None]:
        """The time and offset before which nothing of this stream lies beyond `after`."""
        if after is None:
            return self._start_ms, None
        time_ms, stream, offset = after
        if stream == self._name:
            return self._start_ms, offset
        return (time_ms if stream < self._name else time_ms + 1), None

    def _read(self, offset: int | None, forward: bool, size: int, start_ms: int | None) -> LogPage | None:
        return self._logs.read(
            self._call.account,
            self._call.region,
            self._group,
            self._name,
            offset,
            size,
            forward,
            start_ms,
            self._end_ms,
        )


def _narrowed(page: LogPage, whole: list[LogEvent], kept: list[LogEvent], forward: bool) -> LogPage:
    """The page with only the `kept` of its `whole` events, so that its ends lie where reading on must begin."""
    cut = len(kept) < len(whole)
    return LogPage(
        events=tuple(kept),
        offset=kept[0].offset if cut and not forward else page.offset,
        next_offset=kept[-1].next_offset if cut and forward else page.next_offset,
        ended=page.ended and not cut,
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    found: list[tuple[Place, LogEvent]]
    more_after: Place | None  # where the next page goes on; None at the end


def _take(merged: Iterator[tuple[Place, LogEvent]], matches: patterns.Filter, limit: int) -> _Taken:
    """Matching events until a page is full or enough was looked at."""
    found: list[tuple[Place, LogEvent]] = []
    scanned = size = 0
    last: Place | None = None
    for place, event in merged:
        length = event.next_offset - event.offset
        if last is not None and (len(found) >= limit or size >= MOST_BYTES or scanned >= MOST_SCANNED_BYTES):
            return _Taken(found, last)
        last = place
        scanned += length
        if matches(event.message):
            found.append((place, event))
            size += length
    return _Taken(found, None)


def _direction(request: shapes.GetLogEventsRequest) -> tuple[bool, int | None]:
    """Whether to read forwards, and from where."""
    token = request.get("nextToken")
    if token is None:
        return request.get("startFromHead", False), None
    direction, slash, offset = token.partition("/")
    if (
        direction not in ("f", "b")
        or not slash
        or not (offset.isascii() and offset.isdigit())
        or len(offset) > 18
    ):
        raise invalid("The specified nextToken is invalid.")
    return direction == "f", int(offset)


def _place(token: str | None, query: object) -> Place | None:
    if token is None:
        return None
    match page_tokens.read(token, query):
        case [int(time_ms), str(stream), int(offset)] if 0 <= offset < 2**63:
            return time_ms, stream, offset
    raise invalid("The specified nextToken is invalid.")


def _filtered(place: Place, event: LogEvent) -> shapes.FilteredLogEvent:
    time_ms, stream, offset = place
    digest = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big") % 10**16
    return {
        "logStreamName": stream,
        "timestamp": time_ms,
        "message": event.message,
        "ingestionTime": time_ms,
        "eventId": f"{time_ms:020d}{digest:016d}{offset:020d}",
    }
