"""Data capture: sampled requests and answers on their way to S3, never in the caller's way.

A request is noted after its answer has left. Small ones become their line at once, large ones on the writer's thread;
once a second everything noted is handed to that thread, which appends it to files (`clary.links.captures`) that
control puts into the bucket. What cannot be kept is dropped and counted, by endpoint and variant, in the metric
`CaptureRecordsDropped` of the namespace `Clary`: when the thread does not follow, when the files that wait for
control have reached their limit, when the disk is nearly full or fails.
"""

import asyncio
import random
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, NamedTuple

from clary.domain.clock import Clock
from clary.domain.routes import Capture, EndpointKey, EndpointRoute
from clary.gateway.balance import Chance
from clary.gateway.capture_lines import Captured, Payload, line
from clary.gateway.plans import EndpointPlan
from clary.gateway.watching import Answer, Watch
from clary.links import captures
from clary.links.captures import Header
from clary.links.processes import ProcessIdentity
from clary.telemetry.metrics import Recorder, Series
from clary.wire.heads import Head

log = getLogger(__name__)

NAMESPACE = "Clary"
DROPPED = "CaptureRecordsDropped"
WRITTEN = "CaptureRecordsWritten"

_CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_INFERENCE_ID = b"x-amzn-sagemaker-inference-id"
_FLUSH_S = 1.0
_LARGE = 32 << 10  # longer than this a line is made on the writer's thread
_REMEMBERED = 1024
_TELL_EVERY_S = 60.0
_LEAST_FREE = 0.05  # of the disk


class Stream(NamedTuple):
    """What shares files: one variant of one endpoint, and where its capture goes."""

    key: EndpointKey
    endpoint: str
    variant: str
    capture: Capture


@dataclass(slots=True)
class _Batch:
    """What was noted of one stream since the last flush."""

    stream: Stream
    items: list[bytes | Captured] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _File:
    path: Path
    file: BinaryIO
    hour: datetime
    began: float
    size: int


class Capturer:
    """One for a gateway. `note` is called on its loop, after an answer; everything else happens elsewhere."""

    def __init__(
        self,
        directory: Path,
        process: ProcessIdentity,
        recorder: Recorder,
        clock: Clock,
        *,
        most_memory_bytes: int = 64 << 20,
        most_spooled_bytes: int = 1 << 30,
        rotate_s: float = 10.0,
        rotate_bytes: int = 16 << 20,
        chance: Chance = random.random,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._chance = chance
        self._most_memory = most_memory_bytes
        self._batches: dict[tuple[str, int, str], _Batch] = {}
        self._noted_bytes = 0  # noted, and not written yet
        self._series: dict[tuple[str, str, str, str, str], Series] = {}
        self._results: SimpleQueue[_Result] = SimpleQueue()
        self._writer = _Writer(
            directory, process, clock, self._results, most_spooled_bytes, rotate_s, rotate_bytes
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writer.start()
        self._tick()

    def close(self) -> None:
        """Blocks until everything noted is in files that control may take."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        self._writer.close()
        self._take_results()

    def sample(self, endpoint: EndpointPlan, head: Head, body: bytes, request_id: str) -> Watch | None:
        """Decides at admission whether a request is captured. Input and output are captured together, or neither."""
        capture = endpoint.route.capture
        if capture is None or self._chance() * 100 >= capture.percent:
            return None
        request = Payload(head.text(b"content-type"), body)
        attributes, inference = head.text(_CUSTOM_ATTRIBUTES), head.text(_INFERENCE_ID)
        now = self._clock.now().timestamp()
        return _Sampled(self, endpoint.route, request_id, now, request, inference, attributes)

    def note(self, route: EndpointRoute, variant: str, captured: Captured) -> None:
        """Takes one sampled request in. Costs microseconds; drops it when too much waits already."""
        size = captured.size
        if self._noted_bytes + size > self._most_memory:
            self.drop(route, variant)
            return
        known = (route.uid, route.generation, variant)
        batch = self._batches.get(known)
        if batch is None:
            batch = self._batches[known] = _Batch(_stream(route, variant))
        item = captured if size > _LARGE else line(captured, batch.stream.capture)
        batch.items.append(item)
        batch.size += size
        self._noted_bytes += size

    def drop(self, route: EndpointRoute, variant: str) -> None:
        """Counts a sampled request that cannot be kept."""
        self._count(_stream(route, variant), DROPPED, 1)

    def flush(self) -> None:
        """Hands what was noted to the writer."""
        batches, self._batches = self._batches, {}
        self._writer.give(list(batches.values()))  # files grow old without news, too
        self._take_results()

    def _tick(self) -> None:
        self.flush()
        self._timer = self._loop.call_later(_FLUSH_S, self._tick)

    def _take_results(self) -> None:
        while not self._results.empty():
            result = self._results.get()
            self._noted_bytes -= result.size
            self._count(result.stream, DROPPED if result.is_dropped else WRITTEN, result.records)

    def _count(self, stream: Stream, name: str, records: int) -> None:
        known = (stream.key.account, stream.key.region, stream.endpoint, stream.variant, name)
        series = self._series.get(known)
        if series is None:  # kept: one for each request that is dropped would cost more than to capture it
            if len(self._series) >= _REMEMBERED:
                self._series.clear()
            account, region, endpoint, variant, _ = known
            dimensions = {"EndpointName": endpoint, "VariantName": variant}
            series = self._recorder.series(account, region, NAMESPACE, name, dimensions, "Count")
            self._series[known] = series
        series.add(1.0, records)


@dataclass(slots=True)
class _Sampled:
    """A sampled request under way: a `Watch`."""

    capturer: Capturer
    route: EndpointRoute
    event_id: str
    at: float
    request: Payload
    inference_id: str
    custom_attributes: str

    def on_end(self, variant: str, answer: Answer | None) -> None:
        payload = None if answer is None else Payload(answer.content_type.decode("latin-1"), answer.body)
        captured = Captured(
            self.event_id, self.at, self.request, payload, self.inference_id, self.custom_attributes
        )
        self.capturer.note(self.route, variant, captured)

    def on_overflow(self, variant: str) -> None:
        self.capturer.drop(self.route, variant)


def _stream(route: EndpointRoute, variant: str) -> Stream:
    assert route.capture is not None, "only where something is captured"
    return Stream(route.key, route.name, variant, route.capture)


class _Result(NamedTuple):
    """What became of a batch."""

    stream: Stream
    records: int
    size: int
    is_dropped: bool


class _Writer:
    """The thread that owns the files."""

    def __init__(
        self,
        directory: Path,
        process: ProcessIdentity,
        clock: Clock,
        results: "SimpleQueue[_Result]",
        most_spooled_bytes: int,
        rotate_s: float,
        rotate_bytes: int,
    ) -> None:
        self._directory = directory
        self._process = process
        self._clock = clock
        self._results = results
        self._most_spooled = most_spooled_bytes
        self._rotate_s = rotate_s
        self._rotate_bytes = rotate_bytes
        self._given: SimpleQueue[list[_Batch] | None] = SimpleQueue()
        self._files: dict[Stream, _File] = {}
        self._told_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def give(self, batches: list[_Batch]) -> None:
        self._given.put(batches)

    def close(self) -> None:
        self._given.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batches := self._given.get()) is not None:
            refusal = self._refusal() if batches else ""
            for batch in batches:
                self._guarded(batch, refusal)
            self._rotate(self._is_due)
        self._rotate(lambda file: True)

    def _guarded(self, batch: _Batch, refusal: str) -> None:
        stream = batch.stream
        if not refusal:
            try:
                self._write(stream, batch)
            except OSError as error:
                refusal = f"the files cannot be written: {error.strerror}"
                self._give_up(stream)
        if refusal:
            self._tell(stream, refusal)
        self._results.put(_Result(stream, len(batch.items), batch.size, bool(refusal)))

    def _refusal(self) -> str:
        """Why nothing more can be kept; empty when it can."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk = shutil.disk_usage(self._directory)
            waiting = captures.spooled_bytes(self._directory)
        except OSError as error:
            return f"the directory cannot be used: {error.strerror}"
        if disk.free < disk.total * _LEAST_FREE:
            return "the disk is nearly full"
        if waiting >= self._most_spooled:
            return "what waits to be put into its bucket has reached the setting capture_spool_bytes"
        return ""

    def _write(self, stream: Stream, batch: _Batch) -> None:
        now = self._clock.now()
        file = self._files.get(stream)
        if file is not None and file.hour != _hour(now):
            self._finish(stream)
            file = None
        if file is None:
            file = self._begin(stream, now)
        lines = [item if isinstance(item, bytes) else line(item, stream.capture) for item in batch.items]
        file.size += _append(file.file, b"".join(lines))

    def _begin(self, stream: Stream, now: datetime) -> _File:
        id_ = str(uuid.uuid4())
        path = captures.part_path(self._directory, self._process, id_)
        bucket, _, prefix = stream.capture.destination.removeprefix("s3://").partition("/")
        header = Header(
            bucket=bucket,
            key=captures.object_key(prefix, stream.endpoint, stream.variant, now, id_),
            account=stream.key.account,
            region=stream.key.region,
            endpoint=stream.endpoint,
            variant=stream.variant,
            kms_key_id=stream.capture.kms_key_id,
        )
        file = path.open("xb", buffering=0)  # what a failed write leaves is cut off, not written later
        self._files[stream] = _File(path, file, _hour(now), self._clock.monotonic(), 0)
        captures.write_header(file, header)
        return self._files[stream]

    def _finish(self, stream: Stream) -> None:
        """Control may take the file now."""
        file = self._files.pop(stream)
        file.file.close()
        file.path.rename(file.path.with_suffix(captures.READY))

    def _give_up(self, stream: Stream) -> None:
        """After a failed write: what was written before is kept, nothing is added."""
        file = self._files.pop(stream, None)
        if file is None:
            return
        try:
            file.file.close()
        except OSError as error:
            log.info("a capture file was not closed cleanly", extra={"error": str(error)})
        try:
            file.path.rename(file.path.with_suffix(captures.READY))
        except OSError as error:
            log.warning("a capture file stays behind", extra={"path": str(file.path), "error": str(error)})

    def _is_due(self, file: _File) -> bool:
        is_old = self._clock.monotonic() - file.began >= self._rotate_s
        return is_old or file.size >= self._rotate_bytes

    def _rotate(self, is_due: Callable[[_File], bool]) -> None:
        for stream in [stream for stream, file in self._files.items() if is_due(file)]:
            try:
                self._finish(stream)
            except OSError as error:
                log.warning("a capture file could not be finished", extra={"error": str(error)})
                self._give_up(stream)

    def _tell(self, stream: Stream, why: str) -> None:
        if self._clock.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = self._clock.monotonic()
            log.warning(
                "captured requests are dropped",
                extra={"endpoint": stream.endpoint, "variant": stream.variant, "why": why},
            )


def _append(file: BinaryIO, data: bytes) -> int:
    """All of it, or, for OSError, none: what is counted as dropped must not be found in the bucket."""
    end = file.tell()
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise
    return len(data)


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
