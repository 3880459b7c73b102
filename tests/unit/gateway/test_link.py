"""The gateway's end of the route link, when control goes at a bad moment and when the gateway itself does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clary import settings as clary_settings
from clary.gateway import link
from clary.gateway.link import RouteLink
from clary.gateway.routes import RouteTable
from clary.links import route_messages
from clary.links.frames import pack, read_frame
from clary.links.processes import ProcessIdentity
from clary.links.route_messages import Applied, Change, Metrics, Snapshot
from clary.settings import Settings
from clary.telemetry.metrics import Recorder, Series
from clary.testing.clock import FakeClock

SNAPSHOT = pack(route_messages.encode(Snapshot(7, ())))


class Gateway:
    def __init__(self, place: Path) -> None:
        loop = asyncio.get_running_loop()
        self.settings: Settings = clary_settings.load({"data_dir": place, "telemetry_interval_s": 3600.0}, {})
        self.settings.routes_socket.parent.mkdir(parents=True)
        self.recorder = Recorder("gateway-0", FakeClock())
        self.table = RouteTable(self.recorder, loop)
        self.link = RouteLink(self.settings, 0, ProcessIdentity(1, 2), self.table, self.recorder)

    def series(self) -> Series:
        return self.recorder.series("1", "r", "n", "m", {})


def test_Z04_control_that_goes_right_after_its_routes_leaves_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link has ended, and who reads it has not heard of that yet."""

    class Ended:
        writes = 0

        @property
        def transport(self) -> "Ended":
            return self

        def get_write_buffer_size(self) -> int:
            return 0

        def is_closing(self) -> bool:
            return self.writes > 0

        def write(self, data: bytes) -> None:
            if self.writes:
                raise RuntimeError("unable to perform operation; the handler is closed")
            self.writes += 1

        def close(self) -> None: ...

    async def connect(path: str) -> tuple[asyncio.StreamReader, Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(SNAPSHOT)
        return reader, Ended()

    async def work() -> None:
        gateway = Gateway(root)
        monkeypatch.setattr(asyncio, "open_unix_connection", connect)
        await gateway.link.start()
        assert gateway.table.version == 7

    asyncio.run(work())


def test_L02_a_gateway_that_stops_hands_over_all_its_metrics(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of the time since the batch that control has not taken yet."""
    monkeypatch.setattr(link, "_FIRST_SNAPSHOT_S", 60.0)  # else, after a pause, its routes come from files
    heard: list[Any] = []
    has_closed = asyncio.Event()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SNAPSHOT)
        while (frame := await read_frame(reader)) is not None:
            heard.append(route_messages.decode_from_gateway(frame))
        writer.close()
        has_closed.set()

    async def work() -> None:
        gateway = Gateway(root)
        server = await asyncio.start_unix_server(control, str(gateway.settings.routes_socket))
        await gateway.link.start()
        series = gateway.series()
        series.observe(1.0)
        gateway.recorder.drain()
        series.observe(2.0)
        await gateway.link.close()
        await has_closed.wait()
        server.close()
        batches = [each.batch for each in heard if isinstance(each, Metrics)]
        assert [batch.sequence for batch in batches] == [1, 2]

    asyncio.run(work())


def test_U05_a_gateway_has_thrown_away_what_it_saw_when_it_applies_a_reset(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what nobody has taken yet and what is still in its meters; what it sees from then on counts."""
    monkeypatch.setattr(link, "_FIRST_SNAPSHOT_S", 60.0)  # else, after a pause, it connects twice
    moment = int(FakeClock().now().timestamp() * 1000) + 1
    batches: list[Any] = []
    has_applied, has_closed = asyncio.Event(), asyncio.Event()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SNAPSHOT)
        while (frame := await read_frame(reader)) is not None:
            heard = route_messages.decode_from_gateway(frame)
            if isinstance(heard, Applied) and heard.version == 7:
                writer.write(pack(route_messages.encode(Change(8, (), (), 0, moment))))
            elif isinstance(heard, Applied):
                has_applied.set()
            elif isinstance(heard, Metrics):
                batches.append(heard.batch)
        writer.close()
        has_closed.set()

    async def work() -> None:
        gateway = Gateway(root)
        series = gateway.series()
        series.observe(1.0)
        gateway.recorder.drain()
        series.observe(2.0)
        server = await asyncio.start_unix_server(control, str(gateway.settings.routes_socket))
        await gateway.link.start()
        await has_applied.wait()
        assert gateway.recorder.pending() == []
        series.observe(4.0)
        gateway.recorder.drain()
        (batch,) = gateway.recorder.pending()
        assert (batch.since_ms, [point.sum for point in batch.points]) == (moment, [4.0])
        assert all(each.since_ms < moment for each in batches), (
            "sent before, so control knows it is of before"
        )
        await gateway.link.close()
        await has_closed.wait()
        server.close()

    asyncio.run(work())
