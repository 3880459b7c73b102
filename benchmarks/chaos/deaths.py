"""kill -9 of one of an endpoint's two instances, again and again, while it serves.

Whichever process of the instance is hit, its minder, its init or the server itself, the instance is gone. The other
one answers meanwhile, and the replacement is counted as ready from when every gateway routes to it.
"""

import os
import statistics
import time
from datetime import datetime
from random import Random
from typing import Any

import boto3
import psutil
import xgboost
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.chaos.askers import Askers
from benchmarks.chaos.experiment import Conditions, hold, wait_until
from benchmarks.chaos.ledger import Ledger, served_settles_at
from benchmarks.chaos.paced import Paced
from benchmarks.chaos.remains import minders
from benchmarks.platform import Platform, regressor

ENDPOINT = "mortal"
INSTANCES = 2
RATE = 200.0
EVERY_S = 5.0
READY_WITHIN_S = 1.0
LEVELS = 3
"""The minder, the sandbox's init, the server: from the outside in."""

SCRIPT = b"""
import os, xgboost
def model_fn(model_dir):
    return xgboost.Booster(model_file=os.path.join(model_dir, "xgboost-model"))
def output_fn(prediction, accept):
    return f"{float(prediction[0]):.7g}"
"""


def minutes() -> float:
    return float(os.environ.get("CHAOS_MINUTES", "1"))


def of_a_built_in_handler(conditions: Conditions) -> str:
    booster, rows = regressor(trees=20)
    with conditions.platform() as platform:
        platform.deploy(ENDPOINT, platform.upload(booster), instances=INSTANCES)
        with Paced(platform, ENDPOINT, {"model": booster}, rows, rate=RATE) as load:
            killing = _Killing(platform, conditions.random)
            while killing.goes_on():
                killing.kill_one()
                _must_be_whole(load.ledger)
        _must_be_whole(load.ledger)
        count = served_settles_at(platform, ENDPOINT, load.ledger.asked)
        hold(count == load.ledger.asked, f"the client asked {load.ledger.asked:,}, CloudWatch says {count:,}")
    return f"{killing.summary()}; client: {load.ledger}; server: {count:,} Invocations"


def of_a_script(conditions: Conditions) -> str:
    booster, rows = regressor(trees=20)
    with conditions.platform() as platform:
        uri = platform.upload(booster, more={"code/inference.py": SCRIPT})
        platform.deploy(ENDPOINT, uri, instances=INSTANCES)
        with (
            Paced(platform, ENDPOINT, {"model": booster}, rows, rate=RATE) as load,
            BotoCaller(platform, ENDPOINT, booster, rows) as caller,
        ):
            killing = _Killing(platform, conditions.random)
            while killing.goes_on():
                killing.kill_one()
                _only_asked_to_repeat(load.ledger)
                _must_be_whole(caller.ledger)
        _only_asked_to_repeat(load.ledger)
        _must_be_whole(caller.ledger)
    refused = sum(load.ledger.wrong.values())
    return (
        f"{killing.summary()}; without retries: {load.ledger.asked:,} asked, {load.ledger.right:,} right, {refused} × "
        f"503, nothing else; boto3: {caller.ledger}, {caller.retries} of them at a second try"
    )


class _Killing:
    """Every `EVERY_S` one of the two instances, which are both there again by then."""

    def __init__(self, platform: Platform, random: Random) -> None:
        self._platform, self._random = platform, random
        self._due = time.monotonic() + 1.0
        self._over = self._due + minutes() * 60
        self._known = self._ready()
        self.took_s: list[float] = []

    def goes_on(self) -> bool:
        return time.monotonic() < self._over

    def kill_one(self) -> None:
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due += EVERY_S
        there = sorted(minders(self._platform.settings).items())
        hold(len(there) == INSTANCES, f"{EVERY_S:g} s after a kill {len(there)} of {INSTANCES} instances ran")
        _, minder = self._random.choice(there)
        victim = _chain(minder.pid)[self._random.randrange(LEVELS) :][:1] or [psutil.Process(minder.pid)]
        killed_at = time.time()
        victim[0].kill()
        wait_until(lambda: bool(self._ready() - self._known), "a replacement ready", EVERY_S - 1.0)
        (new,) = self._ready() - self._known
        self._known.add(new)
        self.took_s.append(new[1] - killed_at)

    def summary(self) -> str:
        """Raises `Broken` when replacements took too long. How long that is depends on what else the machine does."""
        took = sorted(self.took_s)
        p95 = took[max(0, -(-95 * len(took) // 100) - 1)]
        text = (
            f"{len(took)} kills in {minutes():g} min; replaced after {statistics.median(took):.2f} s (median), "
            f"{p95:.2f} s (p95), {took[-1]:.2f} s (longest), with a load average of {os.getloadavg()[1]:.0f}"
        )
        hold(p95 <= READY_WITHIN_S, text)
        return text

    def _ready(self) -> set[tuple[str, float]]:
        """Instances that were ready, and since when every gateway routed to them: what the time line tells."""
        story = self._platform.running.client().admin("GET", f"/_clary/why/{ENDPOINT}")
        return {
            (event["Detail"]["instance"], datetime.fromisoformat(event["At"]).timestamp())
            for event in story["Events"]
            if event["Step"] == "instance ready"
        }


def _chain(pid: int) -> list[psutil.Process]:
    """The process and its first descendants, one of each generation."""
    chain = [psutil.Process(pid)]
    while children := chain[-1].children():
        chain.append(min(children, key=lambda child: child.create_time()))
    return chain


class BotoCaller(Askers):
    """One thread with boto3 as everybody has it: its own retries, nothing configured."""

    def __init__(self, platform: Platform, endpoint: str, booster: xgboost.Booster, rows: Any) -> None:
        key = platform.running.key
        self._client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=platform.url,
            region_name="us-east-1",
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
        )
        self._endpoint = endpoint
        self._body = ",".join(f"{value:.7g}" for value in rows[0])
        self._expected = float(booster.predict(xgboost.DMatrix(rows[:1]))[0])
        self.ledger = Ledger()
        self.retries = 0
        super().__init__([self._run])

    def _run(self) -> None:
        while not self.is_over.wait(0.01):
            try:
                answer = self._client.invoke_endpoint(
                    EndpointName=self._endpoint, ContentType="text/csv", Body=self._body
                )
                is_right = abs(float(answer["Body"].read()) - self._expected) < 1e-4
                self.retries += answer["ResponseMetadata"]["RetryAttempts"]
            except (ClientError, BotoCoreError) as error:
                self.ledger.broken[str(error)[:160]] += 1
                continue
            if is_right:
                self.ledger.right += 1
            else:
                self.ledger.wrong["another prediction"] += 1


def _must_be_whole(ledger: Ledger) -> None:
    hold(not ledger.wrong and not ledger.broken, str(ledger))


def _only_asked_to_repeat(ledger: Ledger) -> None:
    is_so = all(seen.startswith("503 ") for seen in ledger.wrong) and not ledger.broken
    hold(is_so, str(ledger))
