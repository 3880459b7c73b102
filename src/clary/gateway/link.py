"""The gateway's end of the route link.

At the start it takes its routes from control before it accepts anything, or, when control is not there, from the
files control left. From then on it stays connected, for ever, applies what comes and says so. Metrics go the other
way: one batch at a time, the next when control has taken it; while control is away the recorder keeps them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from logging import getLogger

import msgspec

from clary.domain.instances import InstanceId
from clary.gateway.routes import RouteTable
from clary.links import route_messages
from clary.links.frames import FrameError, pack, read_frame
from clary.links.processes import ProcessIdentity
from clary.links.route_messages import (
    PROTOCOL,
    Applied,
    Change,
    Drain,
    Drained,
    FromGateway,
    Hello,
    Metrics,
    MetricsTaken,
    Refused,
    Snapshot,
)
from clary.settings import Settings
from clary.telemetry.metrics import Recorder

log = getLogger(__name__)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5  # well below the time control gives a gateway to apply a change
_FIRST_SNAPSHOT_S = 2.0
_MOST_UNSENT = 1 << 20

_BREAKS = (OSError, FrameError, msgspec.DecodeError)


class RouteLink:
    """Keeps `table` equal to control's routes and hands control the recorder's batches."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        process: ProcessIdentity,
        table: RouteTable,
        recorder: Recorder,
        load_identities: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._hello = Hello(PROTOCOL, number, process.pid, process.start_time)
        self._table = table
        self._recorder = recorder
        self._load_identities = load_identities
        self._identities = 0  # the number of those that were loaded
        self._metrics_since_ms = 0
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Returns with the newest routes applied, then keeps them so until `close`."""
        reader = None
        try:
            async with asyncio.timeout(_FIRST_SNAPSHOT_S):
                reader = await self._connect()
                await self._take_one(reader)
        except (*_BREAKS, TimeoutError) as error:
            self._drop()
            reader = None
            self._load_identities()
            self._table.replace(0, route_messages.read_routes(self._settings.routes_dir))
            log.warning("control is not there, routes come from files", extra={"error": str(error)})
        self._spawn(self._stay_connected(reader))
        self._spawn(self._measure())

    async def close(self) -> None:
        """Leaves the link, after the last metrics were offered."""
        for task in (*self._tasks, *self._drains):
            task.cancel()
        self._collect_metrics()
        for batch in self._recorder.pending():  # in their order; what was sent before is not counted again
            self._send(Metrics(batch))
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(0.5):
                    await writer.drain()
            writer.close()

    async def _stay_connected(self, reader: asyncio.StreamReader | None) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                if reader is None:
                    reader = await self._connect()
                while True:
                    await self._take_one(reader)
                    pause = _FIRST_PAUSE_S
            except _BREAKS as error:
                log.info("link to control is down", extra={"error": str(error)})
            self._drop()
            reader = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _connect(self) -> asyncio.StreamReader:
        reader, self._writer = await asyncio.open_unix_connection(str(self._settings.routes_socket))
        self._send(self._hello)
        self._send_oldest_batch()
        return reader

    async def _take_one(self, reader: asyncio.StreamReader) -> None:
        frame = await read_frame(reader)
        if frame is None:
            raise FrameError("control has closed the link")
        message = route_messages.decode_from_control(frame)
        if isinstance(message, Snapshot):
            self._apply_identities(message.identities, is_new=True)
            self._table.replace(message.version, message.routes)
            self._begin_metrics(message.metrics_since_ms)
            self._send(Applied(message.version))
        elif isinstance(message, Change):
            self._apply_identities(message.identities)
            self._table.change(message.version, message.put, message.removed)
            self._begin_metrics(message.metrics_since_ms)
            self._send(Applied(message.version))
        elif isinstance(message, Drain):
            self._spawn(self._drain(message), self._drains)
        elif isinstance(message, MetricsTaken):
            self._recorder.acknowledge(message.sequence)
            self._send_oldest_batch()
        elif isinstance(message, Refused):
            raise FrameError(message.reason)

    def _apply_identities(self, number: int, *, is_new: bool = False) -> None:
        if is_new or number != self._identities:
            self._load_identities()
            self._identities = number

    def _begin_metrics(self, since_ms: int) -> None:
        if since_ms > self._metrics_since_ms:
            self._metrics_since_ms = since_ms
            self._table.flush_meters()  # what they hold was seen before, too
            self._recorder.begin(since_ms)

    async def _drain(self, drain: Drain) -> None:
        idle = asyncio.Event()
        forget = self._table.when_idle(drain.instance_ids, idle.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain.timeout_s):
                    await idle.wait()
        finally:
            forget()
        busy: set[InstanceId] = self._table.busy(drain.instance_ids)
        self._send(Drained(drain.number, tuple(sorted(busy))))

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(self._settings.telemetry_interval_s)
            self._collect_metrics()
            self._send_oldest_batch()

    def _collect_metrics(self) -> None:
        self._table.flush_meters()
        self._recorder.drain()

    def _send_oldest_batch(self) -> None:
        """One at a time, since taking a batch counts as taking all before it. Control takes none twice."""
        if self._writer is None or self._writer.transport.get_write_buffer_size() > _MOST_UNSENT:
            return
        for batch in self._recorder.pending()[:1]:
            self._send(Metrics(batch))

    def _send(self, message: FromGateway) -> None:
        writer = self._writer
        # Of a link that has just broken its reader hears a moment later; writing to it would raise.
        if writer is not None and not writer.is_closing():
            writer.write(pack(route_messages.encode(message)))

    def _drop(self) -> None:
        for drain in self._drains:  # their numbers mean nothing to the next life of control
            drain.cancel()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _spawn(
        self, work: Coroutine[object, object, None], among: set[asyncio.Task[None]] | None = None
    ) -> None:
        tasks = self._tasks if among is None else among
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
