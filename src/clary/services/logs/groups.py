"""DescribeLogGroups and DescribeLogStreams. A group exists when it holds a stream."""

from collections.abc import Sequence

from clary.domain.arns import log_group_arn
from clary.domain.faults import not_supported
from clary.links.logs import LogGroup, LogStream
from clary.services import page_tokens
from clary.services.logs.requests import group_name, invalid, name_from, no_group, reading
from clary.telemetry.logs import LogReader
from clary.wire.operations import Call, operation
from clary.wire.shapes import logs as shapes

PAGE = 50


class Groups:
    def __init__(self, logs: LogReader) -> None:
        self._logs = logs

    @operation("DescribeLogGroups")
    def describe_log_groups(
        self, call: Call, request: shapes.DescribeLogGroupsRequest
    ) -> shapes.DescribeLogGroupsResponse:
        if request.get("includeLinkedAccounts") or request.get("accountIdentifiers"):
            raise not_supported("Describing log groups of other accounts")
        if "logGroupNamePrefix" in request and "logGroupNamePattern" in request:
            raise invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        with reading():
            found = self._logs.groups(call.account, call.region, request.get("logGroupNamePrefix", ""))
        matching = [group for group in found if _fits(call, group, request)]
        query = _without_page(request)
        after = _position(request.get("nextToken"), query)
        rest = [group for group in matching if after is None or group.name > after[1]]
        limit = request.get("limit", PAGE)
        response: shapes.DescribeLogGroupsResponse = {
            "logGroups": [_group_shape(call, group) for group in rest[:limit]]
        }
        if len(rest) > limit:
            response["nextToken"] = page_tokens.make(query, [0, rest[limit - 1].name])
        return response

    @operation("DescribeLogStreams")
    def describe_log_streams(
        self, call: Call, request: shapes.DescribeLogStreamsRequest
    ) -> shapes.DescribeLogStreamsResponse:
        by_time = request.get("orderBy") == "LastEventTime"
        if by_time and "logStreamNamePrefix" in request:
            raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        group = group_name(call, request.get("logGroupName"), request.get("logGroupIdentifier"))
        with reading():
            found = self._logs.streams(
                call.account, call.region, group, request.get("logStreamNamePrefix", "")
            )
        if found is None:
            raise no_group()
        query = _without_page(request)
        rest = _remaining(found, by_time, request.get("descending", False), request.get("nextToken"), query)
        limit = request.get("limit", PAGE)
        response: shapes.DescribeLogStreamsResponse = {
            "logStreams": [_stream_shape(call, group, stream) for stream in rest[:limit]]
        }
        # Never a token on the last page: the SageMaker SDK asks again, without it, as long as one is there.
        if len(rest) > limit:
            response["nextToken"] = page_tokens.make(query, _key(rest[limit - 1], by_time))
        return response


def _fits(call: Call, group: LogGroup, request: shapes.DescribeLogGroupsRequest) -> bool:
    if request.get("logGroupClass", "STANDARD") != "STANDARD":
        return False
    if request.get("logGroupNamePattern", "") not in group.name:
        return False
    identifiers = request.get("logGroupIdentifiers")
    return identifiers is None or group.name in {name_from(call, identifier) for identifier in identifiers}


def _remaining(
    found: Sequence[LogStream], by_time: bool, descending: bool, token: str | None, query: object
) -> list[LogStream]:
    """The streams in the order asked for, from where the token says."""
    after = _position(token, query)
    ordered = sorted(found, key=lambda stream: _key(stream, by_time), reverse=descending)
    if after is None:
        return ordered
    if descending:
        return [stream for stream in ordered if _key(stream, by_time) < after]
    return [stream for stream in ordered if _key(stream, by_time) > after]


def _key(stream: LogStream, by_time: bool) -> tuple[int, str]:
    return (stream.last_ms or 0) if by_time else 0, stream.name


def _position(token: str | None, query: object) -> tuple[int, str] | None:
    if token is None:
        return None
    match page_tokens.read(token, query):
        case [int(time_ms), str(name)]:
            return time_ms, name
    raise invalid("The specified nextToken is invalid.")


def _without_page(request: shapes.DescribeLogGroupsRequest | shapes.DescribeLogStreamsRequest) -> object:
    return {key: value for key, value in request.items() if key not in ("nextToken", "limit")}


def _group_shape(call: Call, group: LogGroup) -> shapes.LogGroup:
    arn = log_group_arn(call.region, call.account, group.name)
    return {
        "logGroupName": group.name,
        "creationTime": group.created_ms,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "storedBytes": group.stored_bytes,
        "logGroupClass": "STANDARD",
    }


def _stream_shape(call: Call, group: str, stream: LogStream) -> shapes.LogStream:
    shape: shapes.LogStream = {
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "arn": f"{log_group_arn(call.region, call.account, group)}:log-stream:{stream.name}",
        "storedBytes": stream.stored_bytes,
    }
    if stream.first_ms is not None and stream.last_ms is not None:
        shape["firstEventTimestamp"] = stream.first_ms
        shape["lastEventTimestamp"] = stream.last_ms
        shape["lastIngestionTime"] = stream.last_ms
    return shape
