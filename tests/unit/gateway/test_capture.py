"""From a noted request to the object in its bucket, through the files between gateway and control."""

import asyncio
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.routes import Capture, EndpointKey, EndpointRoute
from clary.gateway.capture import DROPPED, WRITTEN, Capturer, Stream, _Writer
from clary.gateway.capture_lines import Captured, Payload
from clary.links import captures, processes
from clary.links.captures import Header
from clary.links.processes import ProcessIdentity
from clary.reconcilers.captures import CaptureShipping
from clary.telemetry.metrics import Recorder
from clary.testing.clock import FakeClock

AT = datetime(2026, 11, 21, 9, 8, 7, 65_000, tzinfo=UTC)
NOBODY = ProcessIdentity(pid=2**22 + 1, start_time=1)  # beyond every pid there can be
ROUTE = EndpointRoute(
    key=EndpointKey("123456789012", "us-east-1", "ep"),
    name="Ep",
    uid="u",
    generation=1,
    variants=(),
    capture=Capture("s3://data/model-monitor/", 100.0, csv_types=("text/csv",)),
)


class World:
    """A gateway's capture, control's shipping, and a bucket."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(AT)
        self.spool = directory / "capture"
        self.spool.mkdir()
        self.blobs = FilesystemBlobs(directory / "objects", self.clock, sync=False)
        self.recorder = Recorder("gateway-0", self.clock)
        self.dropped: list[tuple[Header, int]] = []
        self.shipping = CaptureShipping(
            self.spool, self.blobs, self.clock, lambda header, records: self.dropped.append((header, records))
        )

    def capture(self, *captured: Captured, variant: str = "A", **limits: Any) -> None:
        """What a gateway that lives this long notes."""

        async def live() -> None:
            capturer = Capturer(self.spool, processes.current(), self.recorder, self.clock, **limits)
            capturer.start(asyncio.get_running_loop())
            for each in captured:
                capturer.note(ROUTE, variant, each)
            await asyncio.to_thread(lambda: None)
            capturer.close()

        asyncio.run(live())

    def objects(self) -> dict[str, list[Any]]:
        page = self.blobs.objects("data")
        found = {}
        for info in page.objects:
            with self.blobs.open("data", info.key) as payload:
                found[info.key] = [json.loads(text) for text in payload.read(1 << 24).splitlines()]
        return found

    def counted(self) -> dict[str, int]:
        batch = self.recorder.drain()
        counts: Counter[str] = Counter()
        for point in batch.points if batch else ():
            counts[point.name] += int(point.sum)
        return counts


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    has_free(monkeypatch, 50)  # whatever the disk has of who runs this
    made = World(tmp_path)
    made.blobs.create_bucket("data", "us-east-1")
    yield made
    made.blobs.close()


def has_free(monkeypatch: pytest.MonkeyPatch, per_cent: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100, free=per_cent))


def captured(number: int, body: bytes = b"1,2") -> Captured:
    return Captured(f"e-{number}", 0.0, Payload("text/csv", body), Payload("text/csv", b"3"))


def test_G01_every_noted_request_is_in_its_object_once(world: World) -> None:
    world.capture(*(captured(n) for n in range(500)), captured(500, b"x" * 100_000))
    assert world.shipping.ship() == 1
    (key,) = world.objects()
    assert key.startswith("model-monitor/Ep/A/2026/11/21/09/08-07-065-") and key.endswith(".jsonl")
    lines = world.objects()[key]
    assert [each["eventMetadata"]["eventId"] for each in lines] == [f"e-{n}" for n in range(501)]
    assert lines[500]["captureData"]["endpointInput"]["data"] == "x" * 100_000
    assert world.counted() == {WRITTEN: 501}
    assert not list(world.spool.iterdir())


def test_G01_variants_and_full_files_are_objects_of_their_own(world: World) -> None:
    world.capture(captured(1), variant="A", rotate_bytes=1)
    world.capture(captured(2), variant="B")
    world.shipping.ship()
    assert sorted(key.split("/")[2] for key in world.objects()) == ["A", "B"]


def test_G01_what_a_killed_gateway_left_is_shipped_up_to_its_last_whole_line(world: World) -> None:
    part = captures.part_path(world.spool, NOBODY, "id")
    with part.open("wb") as file:
        captures.write_header(file, Header("data", "k.jsonl", "1" * 12, "r", "Ep", "A"))
        file.write(b'{"eventMetadata":{"eventId":"whole"}}\n{"eventMetada')
    empty = captures.part_path(world.spool, NOBODY, "id2")
    empty.write_bytes(b'{"bucket":"da')
    world.shipping.ship()
    assert world.objects() == {"k.jsonl": [{"eventMetadata": {"eventId": "whole"}}]}
    assert not list(world.spool.iterdir())


def test_G01_a_living_gateways_file_is_left_to_it(world: World) -> None:
    part = captures.part_path(world.spool, processes.current(), "id")
    with part.open("wb") as file:
        captures.write_header(file, Header("data", "k.jsonl", "1" * 12, "r", "Ep", "A"))
        file.write(b"{}\n")
    assert world.shipping.ship() == 0
    assert part.exists()


def test_G01_a_kill_between_object_and_removal_writes_the_same_object_again(world: World) -> None:
    world.capture(captured(1))
    (ready,) = world.spool.iterdir()
    kept = ready.read_bytes()
    world.shipping.ship()
    before = world.objects()
    ready.write_bytes(kept)
    world.shipping.ship()
    assert world.objects() == before


@pytest.mark.parametrize("limits", [{"most_memory_bytes": 1}, {"most_spooled_bytes": 0}])
def test_G01_what_does_not_fit_is_dropped_and_counted(world: World, limits: dict[str, Any]) -> None:
    world.capture(captured(1), captured(2), **limits)
    assert world.shipping.ship() == 0
    assert world.counted() == {DROPPED: 2}


def test_G01_the_last_of_the_disk_is_not_for_captures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, 4)
    world.capture(captured(1))
    assert world.counted() == {DROPPED: 1}


def test_G01_what_is_dropped_makes_one_metric_point_however_much_it_is(world: World) -> None:
    world.capture(*(captured(number) for number in range(100)), most_memory_bytes=0)
    batch = world.recorder.drain()
    assert batch is not None
    assert [(point.name, point.sum) for point in batch.points] == [(DROPPED, 100)]


def test_G01_many_small_requests_are_no_way_round_the_limit(world: World) -> None:
    """What is noted of a request takes memory even where its bodies are next to nothing."""
    world.capture(*(captured(number) for number in range(100)), most_memory_bytes=10_000)
    counts = world.counted()
    assert counts[DROPPED] + counts[WRITTEN] == 100
    assert counts[WRITTEN] <= 20


def test_G01_a_disk_that_fails_costs_captures_and_nothing_else(world: World) -> None:
    world.spool.rmdir()
    world.spool.write_text("in the way")
    world.capture(captured(1), captured(2), captured(3))
    assert world.counted() == {DROPPED: 3}


def test_G01_what_a_full_disk_cuts_off_is_dropped_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of a batch is written when the disk is full. Each request is in the bucket or counted, never both."""
    begin = _Writer._begin

    def on_a_full_disk(self: _Writer, stream: Stream, now: datetime) -> Any:
        file = begin(self, stream, now)
        file.file = cast(BinaryIO, _FullAfter(700, file.file))
        return file

    monkeypatch.setattr(_Writer, "_begin", on_a_full_disk)
    world.capture(*(captured(number) for number in range(10)))
    world.shipping.ship()
    kept = sum(len(lines) for lines in world.objects().values())
    counts = world.counted()
    assert (kept, counts[DROPPED]) == (counts[WRITTEN], 10 - kept)
    assert counts[DROPPED]


class _FullAfter:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, room: int, file: BinaryIO) -> None:
        self._room = room
        self._file = file

    def write(self, data: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_G01_a_missing_bucket_is_waited_for_and_then_given_up(world: World) -> None:
    nowhere = replace(ROUTE.capture or Capture("", 0), destination="s3://nowhere/x")
    part = captures.part_path(world.spool, NOBODY, "id")
    with part.open("wb") as file:
        captures.write_header(
            file, Header(nowhere.destination[5:].split("/")[0], "k", "1" * 12, "r", "Ep", "A")
        )
        file.write(b"{}\n{}\n")
    os.utime(part, (AT.timestamp(), AT.timestamp()))
    assert (world.shipping.ship(), world.dropped) == (0, [])
    world.clock.advance(7200)
    assert world.shipping.ship() == 0
    assert [(header.bucket, records) for header, records in world.dropped] == [("nowhere", 2)]
    assert not part.exists()
