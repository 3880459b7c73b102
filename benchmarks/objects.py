"""Objects of a gigabyte through the port: how fast beside a bare sink, in how much memory, and what invocations notice.

Everything is sent by a client that hashes and copies nothing (`objects_client`), in turn with the sink
(`objects_floor`), so that what is compared are the servers. Before anything is measured, what the server keeps is held
against what was sent.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import invocations, load
from benchmarks.objects_client import (
    BLOCK,
    CONNECTIONS,
    PART_BLOCKS,
    Client,
    crc32_of,
    send_parts,
    signed_head,
)
from benchmarks.platform import BUCKET, Platform, regressor
from benchmarks.report import Table, verdict
from benchmarks.serving import free_port

MIB = int(os.environ.get("BENCH_OBJECT_MIB", "1024"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
CALLERS = (1, 8)
ENDPOINT = "beside-objects"
OBJECT = f"/{BUCKET}/object"
FLAT_MIB = 32


@dataclass(frozen=True, slots=True)
class Transfer:
    """One way of moving a gigabyte; `run` returns when it is done."""

    name: str
    run: Callable[[], None]


def run() -> list[Table]:
    booster, rows = regressor()
    with tempfile.TemporaryDirectory() as directory, Platform() as platform, _sink(Path(directory)) as sink:
        platform.deploy(ENDPOINT, platform.upload(booster))
        put = Transfer(
            "PutObject", lambda: _send(platform.port, signed_head(platform, "PUT", OBJECT, MIB), MIB)
        )
        parts = Transfer(
            f"in parts of {PART_BLOCKS} MiB, {CONNECTIONS} at once", lambda: _put_parts(platform)
        )
        get = Transfer("GetObject", lambda: _send(platform.port, signed_head(platform, "GET", OBJECT, 0)))
        floors = [
            Transfer("bare sink, put (the floor)", lambda: _send(sink, _plain("PUT", MIB), MIB)),
            Transfer("bare sink, get", lambda: _send(sink, _plain("GET", 0))),
        ]
        memory = _Memory(platform)
        for transfer in (put, parts):
            transfer.run()
            _check(platform)
        speed = _speed([floors[0], put, parts, floors[1], get])
        tables = [speed, memory.table()]
        requests = Path(directory) / "requests"
        bodies = [",".join(f"{value:.7g}" for value in row).encode() for row in rows[:2000]]

        def sign() -> None:
            load.write_requests(requests, invocations.signed(platform, ENDPOINT, bodies))

        return [*tables, _invocations(platform, requests, sign, [put, parts, get, floors[0]])]


def _speed(transfers: list[Transfer]) -> Table:
    """All in turn, several rounds: medians, so that drift hits all alike."""
    took: dict[str, list[float]] = {transfer.name: [] for transfer in transfers}
    for _ in range(ROUNDS):
        for transfer in transfers:
            began = time.perf_counter()
            transfer.run()
            took[transfer.name].append(time.perf_counter() - began)
    floor = statistics.median(took[transfers[0].name])
    table = Table(f"An object of {MIB:,} MiB", ("what", "median s", "MiB/s", "of the sink's put", "bar 0.5"))
    for transfer in transfers:
        median = statistics.median(took[transfer.name])
        bar = "" if transfer.name.startswith("bare") else verdict(floor / median, 0.5, at_least=True)
        table.rows.append(
            (transfer.name, f"{median:.2f}", f"{MIB / median:,.0f}", f"{floor / median:.2f}", bar)
        )
    table.notes += [
        "the sink: bare uvloop + httptools, MD5 and CRC32 of the body, a file, fsync; no names, signatures or index",
        "sent as SDKs do over plain HTTP: SHA-256 signed, CRC32 beside it, both verified before the object is there",
        f"in turn, {ROUNDS} rounds; the client sends one block over and over and computes nothing",
    ]
    return table


class _Memory:
    """The peaks of the processes since this was made."""

    def __init__(self, platform: Platform) -> None:
        names = ["control", *(f"gateway-{number}" for number in range(platform.settings.gateways))]
        self._pids = {name: identity.pid for name in names if (identity := platform.process(name))}
        self._before = {}
        for name, pid in self._pids.items():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # from now on VmHWM counts anew
            self._before[name] = _status_mib(pid, "VmRSS")

    def table(self) -> Table:
        table = Table(
            f"Memory while objects of {MIB:,} MiB go in and out",
            ("process", "RSS before, MiB", "peak, MiB", f"grew by (bar {FLAT_MIB} MiB)"),
        )
        for name, pid in self._pids.items():
            before, peak = self._before[name], _status_mib(pid, "VmHWM")
            grew = f"{peak - before:.0f}: {verdict(peak - before, FLAT_MIB, at_least=False)}"
            table.rows.append((name, f"{before:.0f}", f"{peak:.0f}", grew))
        return table


def _invocations(
    platform: Platform, requests: Path, sign: Callable[[], None], transfers: list[Transfer]
) -> Table:
    """What callers of an endpoint see, alone and beside each transfer repeated without a pause, in turn."""
    alone = Transfer("alone", lambda: None)
    found: dict[tuple[int, str], list[load.Load]] = {}
    for callers in CALLERS:
        sign()  # a signature is good for five minutes
        for _ in range(ROUNDS):
            for transfer in (alone, *transfers):
                with _repeated(transfer):
                    seen = load.run(platform.port, requests, callers, SECONDS)
                found.setdefault((callers, transfer.name), []).append(seen)
    table = Table(
        "Invocations while objects go in and out: req/s · p50 · p99 ms, and that p99 beside the one alone",
        ("connections", "alone", *(transfer.name for transfer in transfers)),
    )
    for callers in CALLERS:
        base = statistics.median(seen.p99_us for seen in found[callers, "alone"])
        cells = [_cell(found[callers, "alone"], None)]
        cells += [_cell(found[callers, transfer.name], base) for transfer in transfers]
        table.rows.append((str(callers), *cells))
        ours = [statistics.median(seen.p99_us for seen in found[callers, t.name]) for t in transfers[:-1]]
        bar = verdict(max(ours) / base, 3, at_least=False)
        table.notes.append(
            f"{callers} connections: p99 at most {max(ours) / base:.1f} × alone (bar 3: {bar})"
        )
    errors = sum(seen.errors for loads in found.values() for seen in loads)
    table.notes += [
        f"errors: {errors}; the last column is what a gigabyte costs a machine when another server takes it",
        f"single-row XGBoost, signed; wrk, {SECONDS:g} s a run, median of {ROUNDS} rounds; wrk and the client of the"
        " objects run on the same cores",
    ]
    return table


def _cell(loads: list[load.Load], base: float | None) -> str:
    rate, p50, p99 = (
        statistics.median(getattr(seen, name) for seen in loads) for name in ("rate", "p50_us", "p99_us")
    )
    cell = f"{rate:,.0f} · {p50 / 1000:.2f} · {p99 / 1000:.2f}"
    return cell if base is None else f"{cell} ({p99 / base:.1f} ×)"


@contextmanager
def _repeated(transfer: Transfer) -> Iterator[None]:
    if transfer.name == "alone":
        yield
        return
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.is_set():
            transfer.run()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _put_parts(platform: Platform) -> None:
    s3 = platform.client("s3")
    upload = {"Bucket": BUCKET, "Key": OBJECT.rpartition("/")[2]}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    heads = [
        signed_head(
            platform, "PUT", f"{OBJECT}?partNumber={number}&uploadId={upload['UploadId']}", PART_BLOCKS
        )
        for number in range(1, MIB // PART_BLOCKS + 1)
    ]
    etags = send_parts(platform.port, heads)
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def _check(platform: Platform) -> None:
    """What is measured must be right: the object as it comes back."""
    body = platform.client("s3").get_object(Bucket=BUCKET, Key=OBJECT.rpartition("/")[2])["Body"]
    blocks = 0
    while block := body.read(len(BLOCK)):
        assert block == BLOCK, "the object is not what was sent"
        blocks += 1
    assert blocks == MIB, blocks


def _send(port: int, head: bytes, blocks: int = 0) -> None:
    with closing(Client(port)) as client:
        answer = client.send(head, blocks)
    assert blocks or answer.size == MIB << 20, answer
    if "x-amz-checksum-crc32" in answer.headers:
        assert answer.headers["x-amz-checksum-crc32"] == crc32_of(MIB), answer


def _plain(method: str, blocks: int) -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {blocks * len(BLOCK)}\r\n\r\n".encode()


@contextmanager
def _sink(directory: Path) -> Iterator[int]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "benchmarks.objects_floor",
        "--port",
        str(port),
        "--directory",
        str(directory),
    ]
    process = subprocess.Popen(command)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _status_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
