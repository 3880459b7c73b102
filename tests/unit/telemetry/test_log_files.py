"""Log files: what an instance writes is what `LogReader` shows, with times that stay."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.instances import LogTarget
from clary.links.hosts import HostUnavailable
from clary.links.logs import LogEvent, LogPage
from clary.telemetry import log_times
from clary.telemetry.logs import LogFiles, LogReader, LogsUnavailable, RemoteLogs, link_operations
from clary.testing.clock import FakeClock

ACCOUNT, REGION = "123456789012", "us-east-1"
GROUP = "/aws/sagemaker/Endpoints/e"
TARGET = LogTarget(ACCOUNT, REGION, GROUP, "AllTraffic/i-1")


class Disk:
    """Log files in a directory, and an instance that writes to one of them."""

    def __init__(self, root: Path, max_bytes: int = 1 << 30) -> None:
        self.root = root
        self.clock = FakeClock()
        self.files = LogFiles(root, self.clock, max_bytes)

    def write(self, data: bytes, target: LogTarget = TARGET) -> None:
        descriptor = self.files.open_stream(target)
        try:
            assert os.write(descriptor, data) == len(data)
        finally:
            os.close(descriptor)

    def settle(self) -> None:
        """Makes what is written look older than a begun line is held back."""
        for path in self.root.rglob("*.log"):
            os.utime(path, (0, 0))

    def now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def read(
        self,
        offset: int | None = None,
        limit_bytes: int = 1 << 20,
        forward: bool = True,
        start_ms: int | None = None,
        end_ms: int | None = None,
        reader: LogReader | None = None,
    ) -> LogPage:
        page = (reader or self.files).read(
            ACCOUNT, REGION, GROUP, TARGET.stream, offset, limit_bytes, forward, start_ms, end_ms
        )
        assert page is not None
        return page


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "logs")


def messages(page: LogPage) -> list[str]:
    return [event.message for event in page.events]


def test_L01_lines_are_events(disk: Disk) -> None:
    disk.write(b"one\ntwo\r\n\nthree\n")
    page = disk.read()
    assert messages(page) == ["one", "two", "", "three"]
    assert page.next_offset == 16 and page.ended
    assert messages(disk.read(page.next_offset)) == []
    assert disk.read(page.next_offset).next_offset == page.next_offset


def test_reading_goes_on_where_it_stopped(disk: Disk) -> None:
    disk.write(b"one\n")
    first = disk.read()
    disk.write(b"two\n")
    assert messages(disk.read(first.next_offset)) == ["two"]


def test_an_unknown_stream_and_group_are_none(disk: Disk) -> None:
    assert disk.files.read(ACCOUNT, REGION, GROUP, "none") is None
    assert disk.files.streams(ACCOUNT, REGION, GROUP) is None
    assert disk.files.groups(ACCOUNT, REGION) == []
    assert disk.files.tail(TARGET, 5) == []


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    limit=st.integers(1, 200),
)
def test_pages_forwards_and_backwards_show_the_same(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], limit: int
) -> None:
    disk = Disk(tmp_path_factory.mktemp("pages"))
    disk.write(b"".join(line + b"\n" for line in lines))
    whole = disk.read().events
    assert len(whole) == len(lines)
    assert _walk(lambda offset: disk.read(offset, limit), lambda page: page.next_offset) == list(whole)
    backwards = _walk(
        lambda offset: disk.read(offset, limit, forward=False), lambda page: page.offset, back=True
    )
    assert backwards == list(whole)


def _walk(
    read: Callable[[int | None], LogPage], following: Callable[[LogPage], int], back: bool = False
) -> list[LogEvent]:
    events: list[LogEvent] = []
    page = read(None)
    while page.events:
        events = [*page.events, *events] if back else [*events, *page.events]
        ended, page = page.ended, read(following(page))
        assert ended == (not page.events)
    return events


def test_times_are_those_of_the_marks_and_never_change(disk: Disk) -> None:
    disk.write(b"one\n")
    written = disk.now_ms()
    disk.files.mark()
    disk.clock.advance(10)
    disk.write(b"two\n")
    disk.files.mark()
    seen = disk.read().events
    assert [event.timestamp_ms for event in seen] == [written, written + 10_000]
    disk.clock.advance(100)
    disk.write(b"three\n")
    later = disk.read().events
    assert later[:2] == seen
    assert later[2].timestamp_ms == written + 110_000
    again = LogFiles(disk.root, disk.clock)
    assert disk.read(reader=again).events == later


def test_a_shown_event_keeps_its_time_even_when_nobody_marked(disk: Disk) -> None:
    disk.write(b"one\n")
    shown = disk.read().events
    disk.clock.advance(30)
    disk.files.mark()
    assert disk.read().events == shown


def test_times_run_forwards_when_the_clock_runs_back(disk: Disk) -> None:
    disk.write(b"one\n")
    disk.files.mark()
    disk.clock.advance(-60)
    disk.write(b"two\n")
    disk.files.mark()
    first, second = disk.read().events
    assert first.timestamp_ms <= second.timestamp_ms


def test_half_a_mark_left_by_a_power_cut_is_overwritten(disk: Disk) -> None:
    disk.write(b"one\n")
    disk.files.mark()
    (times,) = disk.root.rglob("*.times")
    with times.open("ab") as file:
        file.write(b"\xff" * 7)
    disk.clock.advance(5)
    disk.write(b"two\n")
    disk.files.mark()
    first, second = disk.read().events
    assert second.timestamp_ms == first.timestamp_ms + 5000


def test_only_events_of_the_asked_time(disk: Disk) -> None:
    times = []
    for number in range(5):
        disk.write(f"{number}\nbegun {number}: ".encode())
        times.append(disk.now_ms())
        disk.files.mark()
        disk.clock.advance(10)
    disk.write(b"\n")
    for forward in (True, False):
        page = disk.read(forward=forward, start_ms=times[1], end_ms=times[3])
        assert all(times[1] <= event.timestamp_ms < times[3] for event in page.events)
        assert messages(page) == ["begun 1: 2", "begun 2: 3"]
        assert messages(disk.read(forward=forward, start_ms=disk.now_ms() + 1)) == []
        assert messages(disk.read(forward=forward, end_ms=times[0])) == []
        assert len(disk.read(forward=forward, start_ms=0).events) == 6


def test_a_begun_line_is_held_back_until_it_is_old_or_the_stream_finished(disk: Disk) -> None:
    disk.write(b"whole\nbegun")
    (log,) = disk.root.rglob("*.log")
    now = disk.clock.now().timestamp()
    os.utime(log, (now, now))
    assert messages(disk.read()) == ["whole"]
    assert messages(disk.read(forward=False)) == ["whole"]
    assert disk.files.tail(TARGET, 1) == ["begun"]
    disk.files.finish(TARGET)
    assert messages(disk.read()) == ["whole", "begun"]
    assert messages(disk.read(forward=False)) == ["whole", "begun"]


def test_an_old_begun_line_is_shown_and_its_rest_is_another_event(disk: Disk) -> None:
    disk.write(b"begun")
    disk.settle()
    page = disk.read()
    assert messages(page) == ["begun"]
    disk.write(b" and ended\n")
    assert messages(disk.read(page.next_offset)) == [" and ended"]


def test_a_restarted_host_goes_on_marking(disk: Disk) -> None:
    descriptor = disk.files.open_stream(TARGET)
    restarted = LogFiles(disk.root, disk.clock)
    restarted.watch(TARGET)
    restarted.watch(LogTarget(ACCOUNT, REGION, GROUP, "none"))
    for _ in range(2):
        os.write(descriptor, b"x\n")
        restarted.mark()
        disk.clock.advance(7)
    os.close(descriptor)
    first, second = disk.read(reader=restarted).events
    assert second.timestamp_ms - first.timestamp_ms == 7000


def test_a_finished_stream_can_be_opened_again(disk: Disk) -> None:
    disk.write(b"one\n")
    disk.files.finish(TARGET)
    disk.write(b"two\n")
    assert messages(disk.read()) == ["one", "two"]


def test_streams_and_groups_are_described(disk: Disk) -> None:
    created = disk.now_ms()
    disk.write(b"")
    disk.clock.advance(1)
    disk.write(b"12345\n")
    disk.files.mark()
    disk.clock.advance(1)
    disk.write(b"6\n")
    disk.files.mark()
    disk.write(b"x\n", LogTarget(ACCOUNT, REGION, GROUP, "Other/i-2"))
    disk.write(b"x\n", LogTarget(ACCOUNT, "eu-west-1", "/elsewhere", "s"))
    streams = disk.files.streams(ACCOUNT, REGION, GROUP, "AllTraffic/")
    assert streams is not None
    (stream,) = streams
    assert (stream.name, stream.created_ms, stream.stored_bytes) == (TARGET.stream, created, 8)
    assert (stream.first_ms, stream.last_ms) == (created + 1000, created + 2000)
    (group,) = disk.files.groups(ACCOUNT, REGION)
    assert (group.name, group.created_ms, group.stored_bytes) == (GROUP, created, 10)
    assert disk.files.groups(ACCOUNT, REGION, "/aws/sagemaker/Train") == []


def test_an_empty_stream_has_no_event_times(disk: Disk) -> None:
    disk.write(b"")
    streams = disk.files.streams(ACCOUNT, REGION, GROUP)
    assert streams is not None
    assert (streams[0].first_ms, streams[0].last_ms, streams[0].stored_bytes) == (None, None, 0)


@pytest.mark.parametrize("name", ["../../escape", "..", "/etc/passwd", "a" * 512, "ü/ß", "~x", ".hidden"])
def test_any_name_stays_inside_and_comes_back(disk: Disk, name: str) -> None:
    target = LogTarget(ACCOUNT, REGION, name, name)
    disk.write(b"x\n", target)
    assert [group.name for group in disk.files.groups(ACCOUNT, REGION)] == [name]
    streams = disk.files.streams(ACCOUNT, REGION, name)
    assert streams is not None and [stream.name for stream in streams] == [name]
    assert all(path.is_relative_to(disk.root) for path in disk.root.parent.rglob("*.log"))
    assert disk.files.delete_group(ACCOUNT, REGION, name)
    assert not list(disk.root.rglob("*.log")) and not list(disk.root.rglob("*.name"))


def test_logs_are_private_to_the_user(disk: Disk) -> None:
    disk.write(b"x\n")
    (log,) = disk.root.rglob("*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_deleting_and_clearing(disk: Disk) -> None:
    disk.write(b"x\n")
    assert disk.files.delete_group(ACCOUNT, REGION, GROUP)
    assert not disk.files.delete_group(ACCOUNT, REGION, GROUP)
    disk.files.mark()
    disk.write(b"y\n")
    assert messages(disk.read()) == ["y"]
    disk.files.clear()
    disk.files.mark()
    assert disk.files.groups(ACCOUNT, REGION) == []


def test_a_stream_over_its_limit_drops_its_oldest_text(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "logs", max_bytes=1 << 20)
    line = b"%07d" + b"." * 92 + b"\n"
    descriptor = disk.files.open_stream(TARGET)
    for number in range(20_000):
        os.write(descriptor, line % number)
    disk.files.mark()
    os.write(descriptor, b"the end\n")
    os.close(descriptor)
    page = disk.read()
    (log,) = disk.root.rglob("*.log")
    if log.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system cannot give the space of a part of a file back")
    assert "dropped" in page.events[0].message
    second = page.events[1]
    assert second.offset == page.events[0].next_offset
    assert second.message.startswith(f"{second.offset // 100:07d}")
    events = _walk(lambda offset: disk.read(offset, 100_000), lambda page: page.next_offset)
    assert events[-1].message == "the end"
    backwards = _walk(
        lambda offset: disk.read(offset, 100_000, forward=False), lambda page: page.offset, back=True
    )
    assert backwards == events[1:]


def test_a_line_without_end_is_cut(disk: Disk) -> None:
    disk.write(b"x" * 1_000_000 + b"\n" + b"next\n")
    found = messages(disk.read())
    assert found[-1] == "next"
    assert sum(map(len, found[:-1])) == 1_000_000
    assert max(map(len, found)) <= 512 << 10
    assert disk.files.tail(TARGET, 1) == ["next"]


@pytest.mark.parametrize("forward", [True, False])
def test_a_flood_of_empty_lines_comes_in_pages(disk: Disk, forward: bool) -> None:
    disk.write(b"\n" * 25_000)
    page = disk.read(forward=forward)
    assert len(page.events) == 10_000 and not page.ended
    events = _walk(
        lambda offset: disk.read(offset, forward=forward),
        lambda page: page.next_offset if forward else page.offset,
        back=not forward,
    )
    assert [event.offset for event in events] == list(range(25_000))


def test_the_tail_is_the_last_lines(disk: Disk) -> None:
    disk.write(b"".join(b"%d\n" % number for number in range(1000)))
    assert disk.files.tail(TARGET, 3) == ["997", "998", "999"]


def remote(files: LogFiles) -> RemoteLogs:
    """A `RemoteLogs` whose link carries JSON to `files` and back."""
    operations = link_operations(files)

    def call(operation: str, arguments: object) -> object:
        carried = msgspec.json.decode(msgspec.json.encode(arguments))
        return msgspec.json.decode(msgspec.json.encode(operations[operation](carried)))

    return RemoteLogs(call)


def test_logs_read_alike_over_the_link(disk: Disk) -> None:
    disk.write(b"one\ntwo\n")
    reader: LogReader = remote(disk.files)
    assert disk.read(reader=reader) == disk.read()
    assert disk.read(None, 1, False, reader=reader) == disk.read(None, 1, False)
    assert reader.read(ACCOUNT, REGION, GROUP, "none") is None
    assert reader.groups(ACCOUNT, REGION) == disk.files.groups(ACCOUNT, REGION)
    assert reader.streams(ACCOUNT, REGION, GROUP) == disk.files.streams(ACCOUNT, REGION, GROUP)
    assert reader.streams(ACCOUNT, REGION, "none") is None
    assert reader.tail(TARGET, 1) == ["two"]
    assert reader.delete_group(ACCOUNT, REGION, GROUP)
    reader.clear()


def test_without_a_host_logs_are_unavailable() -> None:
    def call(operation: str, arguments: object) -> object:
        raise HostUnavailable("nobody there")

    with pytest.raises(LogsUnavailable):
        RemoteLogs(call).groups(ACCOUNT, REGION)


class Writing(FakeClock):
    """Whenever it is asked, the instance has just written a line, and some time has passed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def now(self) -> datetime:
        with self._path.open("ab") as file:
            file.write(b"line\n")
        self.advance(0.5)
        return super().now()


def test_L01_an_event_keeps_its_time_while_the_instance_goes_on_writing(disk: Disk) -> None:
    disk.write(b"first\n")
    (path,) = disk.root.rglob("*.log")
    disk.clock = Writing(path)
    disk.files = LogFiles(disk.root, disk.clock)
    shown: dict[int, LogEvent] = {}
    for _ in range(3):
        for event in disk.read().events:
            assert shown.setdefault(event.offset, event) == event
    assert len(shown) > 3


def test_L01_who_reads_makes_no_file_that_keeps_a_group_from_being_deleted(disk: Disk) -> None:
    disk.write(b"one\n")
    (path,) = disk.root.rglob("*.log")
    marks = path.with_suffix(".times")
    marks.unlink()  # as in the middle of a deletion
    assert disk.files.tail(TARGET, 1) == ["one"]
    assert [stream.name for stream in disk.files.streams(ACCOUNT, REGION, GROUP) or ()] == [TARGET.stream]
    assert not marks.exists()


def test_L01_a_group_that_is_deleted_while_it_is_listed_is_none(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write(b"one\n")

    def gone(self: Path, pattern: str) -> list[Path]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "glob", gone)
    assert disk.files.streams(ACCOUNT, REGION, GROUP) is None
    assert disk.files.groups(ACCOUNT, REGION) == []


def test_L01_logs_that_are_emptied_while_their_groups_are_listed_are_none(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write(b"one\n")
    entries = Path.iterdir

    def emptied(self: Path) -> Iterator[Path]:
        shutil.rmtree(self)
        return entries(self)

    monkeypatch.setattr(Path, "iterdir", emptied)
    assert disk.files.groups(ACCOUNT, REGION) == []


def test_L01_a_full_disk_keeps_nobody_from_reading(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write(b"before\n")

    def full(path: Path, offset: int, time_ms: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(log_times, "append", full)
        disk.write(b"meanwhile\n")
        disk.files.mark()
        assert [event.message for event in disk.read().events] == ["before", "meanwhile"]
        assert disk.files.tail(TARGET, 1) == ["meanwhile"]
    disk.clock.advance(5)
    disk.files.mark()
    assert disk.read().events[-1].timestamp_ms == disk.now_ms()
