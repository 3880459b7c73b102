"""The operations of CloudWatch Logs over real log files: what the SDKs' log followers rely on."""

import os
from pathlib import Path
from typing import cast

import pytest

from clary.domain.faults import Fault
from clary.domain.instances import LogTarget
from clary.domain.principals import assumed_role
from clary.links.hosts import HostUnavailable
from clary.links.logs import LogPage
from clary.services import page_tokens
from clary.services.logs import events as events_module
from clary.services.logs.events import Events
from clary.services.logs.groups import Groups
from clary.telemetry.logs import LogFiles, LogReader, RemoteLogs
from clary.testing.clock import FakeClock
from clary.wire.operations import Call
from clary.wire.shapes import logs as shapes

ACCOUNT, REGION = "123456789012", "us-east-1"
GROUP = "/aws/sagemaker/Endpoints/e"
STREAM = "AllTraffic/i-1"


class Logs:
    """The service over a directory, and instances that write there."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.files = LogFiles(root, self.clock)
        self.use(self.files)
        self.call = Call(
            service="logs",
            operation="",
            account=ACCOUNT,
            region=REGION,
            principal=assumed_role(ACCOUNT, "r", "s", "AKIA"),
            request_id="1",
            received_at=self.clock.now(),
        )

    def use(self, reader: LogReader) -> None:
        self.groups, self.events = Groups(reader), Events(reader)

    def write(self, text: str, stream: str = STREAM, group: str = GROUP, seconds: int = 1) -> None:
        """Appends `text` now; then time goes on."""
        target = LogTarget(ACCOUNT, REGION, group, stream)
        descriptor = self.files.open_stream(target)
        os.write(descriptor, text.encode())
        os.close(descriptor)
        self.files.mark()
        self.clock.advance(seconds)

    def now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def get(self, **members: object) -> shapes.GetLogEventsResponse:
        request = {"logGroupName": GROUP, "logStreamName": STREAM} | members
        request = {key: value for key, value in request.items() if value is not None}
        return self.events.get_log_events(self.call, cast(shapes.GetLogEventsRequest, request))

    def filter(self, **members: object) -> shapes.FilterLogEventsResponse:
        request = {"logGroupName": GROUP} | members
        return self.events.filter_log_events(self.call, cast(shapes.FilterLogEventsRequest, request))

    def streams(self, **members: object) -> shapes.DescribeLogStreamsResponse:
        request = {"logGroupName": GROUP} | members
        request = {key: value for key, value in request.items() if value is not None}
        return self.groups.describe_log_streams(self.call, cast(shapes.DescribeLogStreamsRequest, request))

    def describe(self, **members: object) -> shapes.DescribeLogGroupsResponse:
        return self.groups.describe_log_groups(self.call, cast(shapes.DescribeLogGroupsRequest, members))


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs")


def said(response: shapes.GetLogEventsResponse | shapes.FilterLogEventsResponse) -> list[str]:
    return [event["message"] for event in response["events"]]


def fault_code(caught: pytest.ExceptionInfo[Fault]) -> str:
    return caught.value.code


def test_L01_following_a_log_sees_each_line_once_and_ends_on_the_same_token(logs: Logs) -> None:
    logs.write("one\ntwo\n")
    first = logs.get(startFromHead=True)
    assert said(first) == ["one", "two"]
    end = logs.get(startFromHead=True, nextToken=first["nextForwardToken"])
    assert said(end) == []
    assert end["nextForwardToken"] == first["nextForwardToken"]
    logs.write("three\n")
    more = logs.get(startFromHead=True, nextToken=end["nextForwardToken"])
    assert said(more) == ["three"]


def test_without_start_from_head_the_newest_events_come(logs: Logs) -> None:
    logs.write("".join(f"{number}\n" for number in range(10)))
    newest = logs.get(limit=3)
    assert said(newest) == ["7", "8", "9"]
    before = logs.get(limit=3, nextToken=newest["nextBackwardToken"])
    assert said(before) == ["4", "5", "6"]
    again = logs.get(limit=3, nextToken=before["nextForwardToken"])
    assert said(again) == ["7", "8", "9"]
    assert said(logs.get(limit=100, nextToken=before["nextBackwardToken"])) == ["0", "1", "2", "3"]
    start = logs.get(nextToken="b/0")
    assert (said(start), start["nextBackwardToken"]) == ([], "b/0")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_from_the_head_hold_everything_once(logs: Logs, limit: int) -> None:
    lines = [f"line {number}" if number % 3 else "" for number in range(20)]
    logs.write("".join(f"{line}\n" for line in lines))
    collected: list[str] = []
    page = logs.get(startFromHead=True, limit=limit)
    while said(page):
        assert len(page["events"]) <= limit
        collected += said(page)
        page = logs.get(startFromHead=True, limit=limit, nextToken=page["nextForwardToken"])
    assert collected == [line for line in lines if line]


def test_events_carry_their_times_and_can_be_asked_for_by_them(logs: Logs) -> None:
    began = logs.now_ms()
    for number in range(5):
        logs.write(f"{number}\n")
    whole = logs.get(startFromHead=True)
    assert [event["timestamp"] for event in whole["events"]] == [began + 1000 * number for number in range(5)]
    for head in (True, False):
        assert said(logs.get(startFromHead=head, startTime=began + 1000, endTime=began + 3000)) == ["1", "2"]
        assert said(logs.get(startFromHead=head, startTime=began + 60_000)) == []


def test_names_by_identifier(logs: Logs) -> None:
    logs.write("one\n")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"
    for identifier in (GROUP, arn, f"{arn}:*"):
        assert said(logs.get(logGroupName=None, logGroupIdentifier=identifier)) == ["one"]
    with pytest.raises(Fault) as caught:
        logs.get(logGroupName=None, logGroupIdentifier=arn.replace(REGION, "eu-west-1"))
    assert fault_code(caught) == "ResourceNotFoundException"
    for members in ({"logGroupName": None}, {"logGroupIdentifier": GROUP}):
        with pytest.raises(Fault) as caught:
            logs.get(**members)
        assert fault_code(caught) == "InvalidParameterException"


def test_what_is_missing_is_said(logs: Logs) -> None:
    for read in (logs.get, logs.filter, logs.streams):
        with pytest.raises(Fault) as caught:
            read()
        assert fault_code(caught) == "ResourceNotFoundException"
        assert caught.value.message == "The specified log group does not exist."
    logs.write("x\n")
    for members in ({"logStreamName": "none"},):
        with pytest.raises(Fault) as caught:
            logs.get(**members)
        assert caught.value.message == "The specified log stream does not exist."
    with pytest.raises(Fault) as caught:
        logs.filter(logStreamNames=[STREAM, "none"])
    assert caught.value.message == "The specified log stream does not exist."


@pytest.mark.parametrize("token", ["", "x", "f/", "f/x", "f/-1", "x/1", "f/1²", "f/" + "9" * 30])
def test_tokens_nobody_gave_are_refused(logs: Logs, token: str) -> None:
    logs.write("x\n")
    with pytest.raises(Fault) as caught:
        logs.get(nextToken=token)
    assert fault_code(caught) == "InvalidParameterException"


def test_a_token_beyond_the_end_waits_there(logs: Logs) -> None:
    logs.write("x\n")
    page = logs.get(nextToken="f/100")
    assert (said(page), page["nextForwardToken"]) == ([], "f/100")


def test_L01_streams_as_the_sdk_asks_for_them(logs: Logs) -> None:
    began = logs.now_ms()
    logs.write("x\n", "job/algo-1-1")
    logs.write("yy\n", "job/algo-2-1")
    logs.write("z\n", "jobber/algo-1")
    response = logs.streams(logStreamNamePrefix="job/", orderBy="LogStreamName", limit=2)
    assert "nextToken" not in response
    first, second = response["logStreams"]
    assert first == {
        "logStreamName": "job/algo-1-1",
        "creationTime": began,
        "firstEventTimestamp": began,
        "lastEventTimestamp": began,
        "lastIngestionTime": began,
        "arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}:log-stream:job/algo-1-1",
        "storedBytes": 2,
    }
    assert second["logStreamName"] == "job/algo-2-1"


@pytest.mark.parametrize("members", [{}, {"orderBy": "LastEventTime"}, {"orderBy": "LogStreamName"}])
@pytest.mark.parametrize("descending", [False, True])
def test_stream_pages_hold_everything_once_in_order(
    logs: Logs, members: dict[str, object], descending: bool
) -> None:
    names = ["c", "a", "d", "b", "e"]
    for name in names:
        logs.write("x\n", name)
    expected = list(names) if members.get("orderBy") == "LastEventTime" else sorted(names)
    if descending:
        expected.reverse()
    page = logs.streams(**members, descending=descending, limit=2)
    collected = [stream["logStreamName"] for stream in page["logStreams"]]
    while "nextToken" in page:
        page = logs.streams(**members, descending=descending, limit=2, nextToken=page["nextToken"])
        collected += [stream["logStreamName"] for stream in page["logStreams"]]
    assert collected == expected


def test_streams_by_time_have_no_prefix(logs: Logs) -> None:
    logs.write("x\n")
    with pytest.raises(Fault) as caught:
        logs.streams(orderBy="LastEventTime", logStreamNamePrefix="a")
    assert caught.value.message == "Cannot order by LastEventTime with a logStreamNamePrefix."
    with pytest.raises(Fault) as caught:
        logs.streams(nextToken="nonsense")
    assert fault_code(caught) == "InvalidParameterException"


def test_L01_groups(logs: Logs) -> None:
    began = logs.now_ms()
    names = ["/aws/sagemaker/Endpoints/a", "/aws/sagemaker/Endpoints/b", "/aws/sagemaker/TrainingJobs"]
    for name in reversed(names):
        logs.write("x\n", group=name)
    groups = logs.describe()["logGroups"]
    assert [group["logGroupName"] for group in groups] == names
    assert groups[2]["creationTime"] == began
    assert groups[0]["arn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{names[0]}:*"
    assert groups[0]["storedBytes"] == 2
    page = logs.describe(logGroupNamePrefix="/aws/sagemaker/Endpoints", limit=1)
    assert [group["logGroupName"] for group in page["logGroups"]] == names[:1]
    page = logs.describe(logGroupNamePrefix="/aws/sagemaker/Endpoints", limit=1, nextToken=page["nextToken"])
    assert [group["logGroupName"] for group in page["logGroups"]] == names[1:2]
    assert "nextToken" not in page
    by_pattern = logs.describe(logGroupNamePattern="Training")["logGroups"]
    assert [group["logGroupName"] for group in by_pattern] == names[2:]
    by_arn = logs.describe(logGroupIdentifiers=[groups[1]["logGroupArn"]])["logGroups"]
    assert [group["logGroupName"] for group in by_arn] == names[1:2]
    assert logs.describe(logGroupClass="DELIVERY")["logGroups"] == []
    with pytest.raises(Fault):
        logs.describe(logGroupNamePattern="a", logGroupNamePrefix="a")


def write_interleaved(logs: Logs) -> list[str]:
    expected = []
    for number in range(12):
        line = f"{number} {'ERROR' if number % 4 == 0 else 'INFO'}"
        logs.write(f"{line}\n", f"stream-{number % 3}", seconds=number % 2)
        expected.append(line)
    return expected


def test_filtered_events_of_all_streams_come_by_time(logs: Logs) -> None:
    expected = write_interleaved(logs)
    found = logs.filter()
    assert "nextToken" not in found
    times = [event["timestamp"] for event in found["events"]]
    assert times == sorted(times)
    assert sorted(said(found)) == sorted(expected)
    ids = {event["eventId"] for event in found["events"]}
    assert len(ids) == len(expected)


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 12])
def test_filter_pages_hold_everything_once(logs: Logs, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_interleaved(logs)
    monkeypatch.setattr(events_module, "MERGE_PAGE_BYTES", 8)
    whole = said(logs.filter())
    page = logs.filter(limit=limit)
    collected = said(page)
    while "nextToken" in page:
        page = logs.filter(limit=limit, nextToken=page["nextToken"])
        assert len(page["events"]) <= limit
        collected += said(page)
    assert collected == whole


def test_a_long_search_gives_empty_pages_and_still_ends(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    write_interleaved(logs)
    monkeypatch.setattr(events_module, "MOST_SCANNED_BYTES", 20)
    page = logs.filter(filterPattern='"11 INFO"')
    pages = 1
    found = said(page)
    while "nextToken" in page:
        page = logs.filter(filterPattern='"11 INFO"', nextToken=page["nextToken"])
        found += said(page)
        pages += 1
    assert found == ["11 INFO"]
    assert pages > 1


def test_filtering_by_stream_time_and_pattern(logs: Logs) -> None:
    began = logs.now_ms()
    write_interleaved(logs)
    assert said(logs.filter(logStreamNames=["stream-1"])) == ["1 INFO", "4 ERROR", "7 INFO", "10 INFO"]
    assert said(logs.filter(logStreamNamePrefix="stream-0", filterPattern="ERROR")) == ["0 ERROR"]
    early = logs.filter(endTime=began + 1000)
    assert all(event["timestamp"] < began + 1000 for event in early["events"])
    assert len(early["events"]) == 2
    assert said(logs.filter(startTime=began + 10**6)) == []
    with pytest.raises(Fault) as caught:
        logs.filter(logStreamNames=["stream-1"], logStreamNamePrefix="s")
    assert fault_code(caught) == "InvalidParameterException"


def test_a_token_belongs_to_its_query(logs: Logs) -> None:
    write_interleaved(logs)
    token = logs.filter(limit=1)["nextToken"]
    with pytest.raises(Fault) as caught:
        logs.filter(filterPattern="ERROR", nextToken=token)
    assert fault_code(caught) == "InvalidParameterException"


@pytest.mark.parametrize("place", [[0, "stream-0", -1], [0, "stream-0", 2**63], [0, "stream-0"], "x", None])
def test_a_forged_place_is_refused(logs: Logs, place: object) -> None:
    write_interleaved(logs)
    with pytest.raises(Fault) as caught:
        logs.filter(nextToken=page_tokens.make({"logGroupName": GROUP}, place))
    assert fault_code(caught) == "InvalidParameterException"


def test_a_deleted_endpoints_log_stays_readable_to_the_end(logs: Logs) -> None:
    logs.write("last words")
    logs.files.finish(LogTarget(ACCOUNT, REGION, GROUP, STREAM))
    assert said(logs.get(startFromHead=True)) == ["last words"]


def test_binary_output_is_text(logs: Logs) -> None:
    descriptor = logs.files.open_stream(LogTarget(ACCOUNT, REGION, GROUP, STREAM))
    os.write(descriptor, bytes(range(256)) + b"\n")
    os.close(descriptor)
    assert all(message.isprintable() or set(message) & set("\t\r\x1b") for message in said(logs.get()))


def test_without_a_host_the_caller_is_told_to_come_back(logs: Logs) -> None:
    def call(operation: str, arguments: object) -> LogPage:
        raise HostUnavailable("no host answers")

    logs.use(RemoteLogs(call))
    for read in (logs.get, logs.filter, logs.streams, logs.describe):
        with pytest.raises(Fault) as caught:
            read()
        assert (caught.value.code, caught.value.status) == ("ServiceUnavailableException", 503)


def test_what_is_not_built_is_refused_by_name(logs: Logs) -> None:
    logs.write("x\n")
    with pytest.raises(Fault, match="is not supported by this server"):
        logs.filter(startFromHead=False)
    with pytest.raises(Fault, match="is not supported by this server"):
        logs.describe(includeLinkedAccounts=True)
