"""Very many models on one multi-model endpoint: what a cold call takes, and what the company of others costs.

`BENCH_MODELS` (10,000), `BENCH_MODELS_LOADED` (1,000: the instance's limit) and `BENCH_MODELS_CALLS` (20,000 of zipf
traffic) make it smaller. Every model adds its own number to what all of them predict, so an answer tells whose it is.
"""

import asyncio
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks import invocations, load
from benchmarks.platform import BUCKET, IMAGE, ROLE, Platform
from benchmarks.report import Table, verdict
from clary.host import limits
from clary.links import hosts, instances

MODELS = int(os.environ.get("BENCH_MODELS", "10000"))
LOADED = int(os.environ.get("BENCH_MODELS_LOADED", "1000"))
CALLS = int(os.environ.get("BENCH_MODELS_CALLS", "20000"))
CALLERS = 1000
ENDPOINT, SINGLE = "bench-models", "bench-one-model"
PREFIX = "many/"
FIRST = 10_000
FEATURES = 8
SECONDS, ROUNDS = 3.0, 3


class Family:
    """Models that are one but for the number that they add."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        rows = rng.normal(size=(600, FEATURES)).astype(np.float32)
        wanted = rows @ rng.normal(size=FEATURES)
        booster = xgboost.train(
            {"max_depth": 5, "base_score": 0.0}, xgboost.DMatrix(rows, wanted), num_boost_round=22
        )
        self.row = ",".join(f"{value:.6g}" for value in rows[0]).encode()
        self.common = float(booster.predict(xgboost.DMatrix(rows[:1]))[0])
        told = json.loads(bytes(booster.save_raw("json")))
        told["learner"]["learner_model_param"]["base_score"] = "1.2345E4"
        again = xgboost.Booster()
        again.load_model(bytearray(json.dumps(told).encode()))
        self._template = bytes(again.save_raw("ubj"))
        assert self._template.count(b"1.2345E4") == 1, "the number stands in the file once, as text"

    @property
    def size_bytes(self) -> int:
        return len(self._template)

    def archive(self, number: int) -> bytes:
        content = self._template.replace(b"1.2345E4", b"%.4fE4" % ((FIRST + number) / 10_000))
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
            info = tarfile.TarInfo("xgboost-model")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def check(self, number: int, answer: bytes) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer[:500]
        found = float(body) - self.common - FIRST
        assert abs(found - number) < 0.2, f"model {number} answered as {found:.2f}"


def run() -> list[Table]:
    family = Family()
    options = {"CLARY_MODELS_PER_INSTANCE": str(LOADED)}
    with tempfile.TemporaryDirectory() as directory, Platform() as platform:
        _upload(platform, family, range(MODELS))
        platform.deploy(SINGLE, platform.upload_archive(family.archive(0), "one.tar.gz"))
        _deploy(platform, options)
        table = Table(
            f"{MODELS:,} models of {family.size_bytes / 1000:.0f} kB on one instance, {LOADED:,} of them loaded",
            ("what", "value", "bar"),
        )
        callers = _burst(platform, family, table)
        cold = _first_calls(platform, family, range(1, MODELS))
        _row(table, "cold call (fetch, unpack, load, answer), p50", statistics.median(cold), 5, "ms")
        _row(table, "cold call, p99", _percentile(cold, 99), 50, "ms")
        table.notes.append(f"{len(cold):,} first calls one after the other, through the gateway with SigV4")
        table.notes.append(callers)
        table.notes.append(asyncio.run(_zipf(platform, family)))
        _warm(platform, family, Path(directory), table)
        _drift(platform, table)
        return [table]


def _row(table: Table, what: str, value: float, bar: float, unit: str) -> None:
    table.rows.append((what, f"{value:.2f} {unit}", f"{bar:g} {unit}: {verdict(value, bar, at_least=False)}"))


def _upload(platform: Platform, family: Family, numbers: Iterable[int]) -> None:
    s3 = platform.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(
            lambda n: s3.put_object(Bucket=BUCKET, Key=_key(n), Body=family.archive(n)), numbers
        ):
            pass


def _key(number: int) -> str:
    return f"{PREFIX}{_target(number)}"


def _target(number: int) -> str:
    return f"m{number}.tar.gz"


def _deploy(platform: Platform, variables: dict[str, str]) -> None:
    sagemaker = platform.client("sagemaker")
    container = {
        "Image": IMAGE,
        "Mode": "MultiModel",
        "ModelDataUrl": f"s3://{BUCKET}/{PREFIX}",
        "Environment": variables,
    }
    sagemaker.create_model(ModelName=ENDPOINT, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    platform.serve(ENDPOINT)


def _requests(platform: Platform, family: Family, numbers: Iterable[int]) -> Iterator[bytes]:
    """Signed one by one; good for five minutes."""
    key = platform.running.key
    signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1")
    path = f"/endpoints/{ENDPOINT}/invocations"
    for number in numbers:
        headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": _target(number)}
        request = AWSRequest("POST", platform.running.url + path, data=family.row, headers=headers)
        signer.add_auth(request)
        request.headers["Host"] = f"127.0.0.1:{platform.port}"
        request.headers["Content-Length"] = str(len(family.row))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        yield f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + family.row


class Caller:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bytes:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self._reader.readexactly(int(length))

    def close(self) -> None:
        self._writer.close()


def _burst(platform: Platform, family: Family, table: Table) -> str:
    """A thousand callers of one cold model."""

    async def all_at_once() -> None:
        callers = [await Caller.connect(platform.port) for _ in range(CALLERS)]
        requests = list(_requests(platform, family, [0] * CALLERS))
        for answer in await asyncio.gather(
            *(caller.ask(request) for caller, request in zip(callers, requests, strict=True))
        ):
            family.check(0, answer)
        for caller in callers:
            caller.close()

    asyncio.run(all_at_once())
    (model,) = [each for each in _models(platform) if each.target_model == _target(0)]
    _row(table, f"loads by {CALLERS:,} first calls of one model at once", model.loads, 1, "")
    return f"{CALLERS:,} callers at once, {CALLERS:,} answers"


def _first_calls(platform: Platform, family: Family, numbers: Sequence[int]) -> list[float]:
    """Milliseconds of each."""

    async def one_by_one() -> list[float]:
        caller = await Caller.connect(platform.port)
        took = []
        for start in range(0, len(numbers), 500):
            part = numbers[start : start + 500]
            for number, request in zip(part, list(_requests(platform, family, part)), strict=True):
                began = time.perf_counter()
                answer = await caller.ask(request)
                took.append((time.perf_counter() - began) * 1000)
                family.check(number, answer)
        caller.close()
        return took

    return asyncio.run(one_by_one())


async def _zipf(platform: Platform, family: Family) -> str:
    """Traffic as it comes, from eight connections; every answer is looked at."""
    drawn = np.random.default_rng(3).zipf(1.2, size=4 * CALLS) - 1
    numbers = [int(number) for number in drawn if number < MODELS][:CALLS]
    before = sum(each.loads for each in _models(platform))
    took: list[float] = []

    async def client(mine: Sequence[int]) -> None:
        caller = await Caller.connect(platform.port)
        for start in range(0, len(mine), 500):
            part = mine[start : start + 500]
            for number, request in zip(part, list(_requests(platform, family, part)), strict=True):
                began = time.perf_counter()
                family.check(number, await caller.ask(request))
                took.append((time.perf_counter() - began) * 1000)
        caller.close()

    await asyncio.gather(*(client(numbers[first::8]) for first in range(8)))
    loads = sum(each.loads for each in _models(platform)) - before
    return (
        f"{len(took):,} calls of zipf traffic from 8 connections: every answer was the right model's; "
        f"{1 - loads / len(took):.1%} found it loaded; p50 {statistics.median(took):.2f} ms, "
        f"p99 {_percentile(took, 99):.1f} ms (the client signs and checks on the same cores)"
    )


def _warm(platform: Platform, family: Family, directory: Path, table: Table) -> None:
    """One connection, one loaded model, against an endpoint of that model alone: medians of rounds in turn."""
    count = 2000
    many, one = directory / "many", directory / "one"
    found: dict[Path, list[float]] = {many: [], one: []}
    for _ in range(ROUNDS):
        load.write_requests(many, _requests(platform, family, [0] * count))
        load.write_requests(one, invocations.signed(platform, SINGLE, [family.row] * count))
        for path, p50s in found.items():
            p50s.append(load.run(platform.port, path, 1, SECONDS).p50_us)
    added = statistics.median(found[many]) - statistics.median(found[one])
    _row(table, "warm call over a call of a single-model endpoint, p50 at 1 connection", added, 50, "µs")
    table.notes.append(
        f"warm p50: {statistics.median(found[many]):.0f} µs, of the single-model endpoint "
        f"{statistics.median(found[one]):.0f} µs"
    )


def _drift(platform: Platform, table: Table) -> None:
    """Loads and unloads in a circle, asked of the host directly; the instance's own memory, shared pages in shares."""
    models, rounds = min(2 * LOADED, MODELS), 5
    id = _instance(platform)
    minder = instances.minder_of(platform.running.settings.instances_dir / id)
    assert minder is not None
    with closing(hosts.HostClient(platform.running.settings.host_socket)) as client:
        sizes = []
        for _ in range(rounds + 1):  # the first fills it
            for number in range(models):
                client.call("load_model", hosts.LoadModel(id, _target(number)), hosts.LoadedModel)
            time.sleep(1.5)  # what is freed goes back within a second
            sizes.append(limits.exact_resident_bytes(minder.pid))
    loads = sum(each.loads for each in _models(platform))
    drift = 100 * (sizes[-1] / sizes[0] - 1)
    _row(table, f"resident memory after {rounds * models:,} further loads and unloads, drift", drift, 5, "%")
    table.notes.append(
        f"the instance takes {sizes[-1] / 2**20:.0f} MiB with {LOADED:,} models loaded; {loads:,} loads in all, none "
        "refused for memory"
    )


def _instance(platform: Platform) -> Any:
    return _models(platform)[0].instance_id


def _models(platform: Platform) -> list[hosts.ModelStatus]:
    with closing(hosts.HostClient(platform.running.settings.host_socket)) as client:
        return client.call("list_models", hosts.ListModels(), list[hosts.ModelStatus])


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
