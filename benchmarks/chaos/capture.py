"""Data capture at 100 %: what it costs the callers, and whether every request is in the bucket or counted as dropped.

Two endpoints with the same model, one of them captured, are asked in turn. Control and supervisor are then killed and
the room for what waits is small, so that requests must be dropped.
"""

import json
import os
import signal
import statistics
import time
from collections import Counter
from typing import Any

from benchmarks.chaos.away import p99
from benchmarks.chaos.experiment import Conditions, hold
from benchmarks.chaos.kills import wait_until_whole
from benchmarks.chaos.ledger import counted, served_settles_at
from benchmarks.chaos.paced import Paced, Stretch
from benchmarks.platform import BUCKET, Platform, regressor
from clary.gateway.capture import DROPPED, NAMESPACE
from clary.links import processes

PLAIN, CAPTURED = "plain", "captured"
RATE = 2000.0
TURN_S = 2.0
CONNECTIONS = 16
SETTLES_S = 0.2
MOST_P99 = 1.5
LEAST_RATE = 0.6
SMALL_ROOM = 2_000_000
ALL_WITHIN_S = 45.0
CONFIG = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": f"s3://{BUCKET}/capture",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}


def rounds() -> int:
    """How often each of the two endpoints has its turn."""
    return int(os.environ.get("CHAOS_CAPTURE_ROUNDS", "8"))


def at_a_rate(conditions: Conditions) -> str:
    """Nothing is dropped, and latency stays."""
    with conditions.platform() as platform:
        asking = _Asking(platform)
        asking.take_turns(RATE)
        plain, captured = asking.seen[PLAIN], asking.seen[CAPTURED]
        of_p99 = p99(captured) / p99(plain)
        figures = f"{_rate(captured):,.0f} requests a second, p99 × {of_p99:.2f}"
        hold(of_p99 <= MOST_P99, figures)
        account = asking.account()
        hold(account.dropped == 0, f"{figures}; {account.dropped} dropped")
    return f"{rounds()} × {TURN_S:g} s each: {figures}; {account}"


def flat_out(conditions: Conditions) -> str:
    """As fast as it goes, and then with nobody who takes the files away: what has no room is dropped and counted."""
    with conditions.platform(CLARY_CAPTURE_SPOOL_BYTES=str(SMALL_ROOM)) as platform:
        asking = _Asking(platform)
        asking.take_turns(None)
        of_rate = _rate(asking.seen[CAPTURED]) / _rate(asking.seen[PLAIN])
        figures = f"{_rate(asking.seen[CAPTURED]):,.0f} requests a second, × {of_rate:.2f}"
        hold(of_rate >= LEAST_RATE, figures)
        for name in ("supervisor", "control"):
            identity = platform.process(name)
            processes.signal(identity, signal.SIGKILL)
            if identity is not None:
                processes.wait_gone([identity], 10)
        asking.ask(CAPTURED)
        platform.start()
        wait_until_whole(platform)
        account = asking.account()
        hold(account.dropped > 0, f"{figures}; nothing was dropped though there was no room")
    return f"{figures}; control killed, room for {SMALL_ROOM / 1e6:g} MB: {account}"


class _Account:
    """Both ends: what the client asked and what became of it. Raises `Broken` when they differ."""

    def __init__(self, platform: Platform, asked: int) -> None:
        self.asked = asked
        deadline = time.monotonic() + ALL_WITHIN_S
        while True:
            self.records, twice = _records(platform)
            self.dropped = counted(platform, NAMESPACE, DROPPED, CAPTURED)
            if self.records + self.dropped >= asked or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        hold(not twice, f"{twice} records stand there twice")
        hold(
            self.records + self.dropped == asked,
            f"{self}: {asked - self.records - self.dropped:,} are nowhere",
        )

    def __str__(self) -> str:
        return f"{self.asked:,} asked = {self.records:,} records in S3 + {self.dropped:,} counted as dropped"


class _Asking:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._booster, self._rows = regressor(trees=20)
        uri = platform.upload(self._booster)
        platform.deploy(PLAIN, uri)
        platform.deploy(CAPTURED, uri, DataCaptureConfig=CONFIG)
        self.seen: dict[str, list[Stretch]] = {PLAIN: [], CAPTURED: []}
        self._asked = Counter[str]()

    def take_turns(self, rate: float | None) -> None:
        """Short turns on the same connections, so that whatever else differs hits both alike."""
        with self._load(PLAIN, rate) as load:
            for number in range(rounds()):
                for name in (PLAIN, CAPTURED) if number % 2 == 0 else (CAPTURED, PLAIN):
                    load.endpoint = name
                    time.sleep(SETTLES_S)
                    mark = load.mark()
                    time.sleep(TURN_S)
                    self.seen[name].append(load.since(mark))
        self._enter(load)

    def ask(self, name: str) -> None:
        with self._load(name, None) as load:
            time.sleep(TURN_S * 3)
        self._enter(load)

    def _load(self, name: str, rate: float | None) -> Paced:
        models = {"model": self._booster}
        return Paced(self._platform, name, models, self._rows, rate=rate, connections=CONNECTIONS)

    def _enter(self, load: Paced) -> None:
        hold(not load.ledger.wrong and not load.ledger.broken, str(load.ledger))
        self._asked += load.asked_of

    def account(self) -> _Account:
        asked = self._asked[CAPTURED]
        count = served_settles_at(self._platform, CAPTURED, asked)
        hold(count == asked, f"the client asked {asked:,}, CloudWatch says {count:,}")
        return _Account(self._platform, asked)


def _records(platform: Platform) -> tuple[int, int]:
    """How many requests are in the bucket, and how many of them more than once."""
    s3: Any = platform.client("s3")
    seen = set[str]()
    lines = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="capture/"):
        for entry in page.get("Contents", []):
            body = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
            for line in body.splitlines():
                seen.add(json.loads(line)["eventMetadata"]["eventId"])
                lines += 1
    return len(seen), lines - len(seen)


def _rate(stretches: list[Stretch]) -> float:
    return statistics.median(stretch.rate for stretch in stretches)
