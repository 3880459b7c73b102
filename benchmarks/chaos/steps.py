"""kill -9 of control at every store write of an update, of every strategy and of two rollbacks, under load.

As in `commits`: control is told to die at its n-th write from now, before its commit or after it, and the supervisor
starts it again; a way ends with the first run in which fewer writes came. `CHAOS_STRIDE` makes every so many of these
kills, 1 all of them. The writes of a rollback are counted from the alarm on.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.chaos.experiment import SABOTAGE_DIR, Broken, Conditions, hold, wait_until
from benchmarks.chaos.updates_load import PacedLoad, asked_between, failures
from benchmarks.chaos.updates_versions import (
    described,
    newest_record,
    one_fleet,
    scripted,
    serving,
    settled,
    strategies,
)
from benchmarks.platform import Platform
from clary.wire.client import ClientError as AdminError

ENDPOINT = "interrupted"
VERSIONS = ("one", "two")
ALARM = "by-hand"
INSTANCES = 2
RATE = 100.0
BAKE_S = 600
MOST_WRITES = 200
CONVERGES_WITHIN_S = 30.0
TRAILING_S = 0.4
"""What control still writes once the caller has seen the end: the lease given back, a sweep."""

Arm = Callable[[], None]


def stride() -> int:
    return int(os.environ.get("CHAOS_STRIDE", "8"))


def at_every_step(conditions: Conditions) -> str:
    kills: list[tuple[str, int, int]] = []
    with tempfile.TemporaryDirectory() as directory:
        armed = Path(directory) / "crash"
        with conditions.platform(CLARY_CRASH_FILE=str(armed), PYTHONPATH=str(SABOTAGE_DIR)) as platform:
            questions = scripted(platform, VERSIONS, INSTANCES)
            with (
                serving(platform, ENDPOINT, VERSIONS[0]),
                PacedLoad(platform, ENDPOINT, questions, RATE, threads=3) as load,
            ):
                trials, random = _Trials(platform, load), conditions.random
                for name, trial in trials.ways():
                    try:
                        count, writes = _at_every_write(armed, trial, random.randrange(stride()))
                    except Broken as error:
                        raise Broken(f"{name}: {error}") from error
                    kills.append((name, count, writes))
                    print(f"  {name}: {count} kills at {writes} writes", flush=True)
            answers = load.answers
    return (
        f"{sum(count for _, count, _ in kills)} kills, one in {stride()} of all, at the writes of: "
        f"{', '.join(f'{name} ({writes})' for name, _, writes in kills)}; {len(answers):,} requests, 0 lost, 0 by a "
        f"version that was not due; converged within {trials.slowest_s:.1f} s"
    )


def _at_every_write(armed: Path, trial: Callable[[Arm], None], offset: int) -> tuple[int, int]:
    """How many kills there were, and how many writes there are."""
    places = itertools.product(range(1, MOST_WRITES), ("before", "after"))
    for count, (number, when) in enumerate(itertools.islice(places, offset, None, stride())):
        try:
            trial(partial(_arm, armed, f"{number} {when}"))
        except Broken as error:
            raise Broken(f"killed {when} the commit of write {number}: {error}") from error
        if armed.exists():
            armed.unlink()
            return count, number - 1
    raise Broken(f"{MOST_WRITES} writes and no end")


def _arm(file: Path, at: str) -> None:
    whole = file.with_suffix(".whole")
    whole.write_text(at)
    whole.rename(file)


@dataclass(slots=True)
class _Trials:
    """An endpoint that goes from one version to the other, again and again, while control dies on the way."""

    platform: Platform
    load: PacedLoad
    live: int = 0
    slowest_s: float = 0.0

    def ways(self) -> list[tuple[str, Callable[[Arm], None]]]:
        """Name, and what is done with one kill on the way."""
        ways: list[tuple[str, Callable[[Arm], None]]] = [
            (name, partial(self._goes, policy)) for name, policy in strategies(0).items()
        ]
        self.platform.client("cloudwatch").put_metric_alarm(
            AlarmName=ALARM, Namespace="Mine", MetricName="None", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold", TreatMissingData="ignore",
        )  # fmt: skip
        watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": ALARM}]}}
        for name in ("canary", "rolling"):
            policy = strategies(BAKE_S)[name] | watched
            ways.append((f"{name} and back", partial(self._comes_back, policy)))
        return ways

    def _goes(self, policy: dict[str, Any], arm: Arm) -> None:
        began, known = time.time(), len(self.load.answers)
        new = 1 - self.live
        arm()
        self._ask(VERSIONS[new], policy)
        done = self._ends_with(VERSIONS[new], "succeeded")
        self._judge(known, began, done, VERSIONS[self.live], VERSIONS[new])
        self.live = new

    def _comes_back(self, policy: dict[str, Any], arm: Arm) -> None:
        self._set_alarm("OK")
        began, known = time.time(), len(self.load.answers)
        self._ask(VERSIONS[1 - self.live], policy)
        wait_until(self._bakes, "the first step", CONVERGES_WITHIN_S)
        arm()
        self._set_alarm("ALARM")
        done = self._ends_with(VERSIONS[self.live], "rolled-back")
        self._judge(known, began, done, VERSIONS[self.live], VERSIONS[self.live])

    def _ask(self, config: str, policy: dict[str, Any]) -> None:
        """Until it is acknowledged, or seen to have been."""

        def is_taken() -> bool:
            found = described(self.platform, ENDPOINT)
            if found.get("EndpointStatus") == "Updating" or found.get("EndpointConfigName") == config:
                return True
            return bool(found) and self._tries(
                "sagemaker",
                "update_endpoint",
                EndpointName=ENDPOINT,
                EndpointConfigName=config,
                DeploymentConfig=policy,
            )

        wait_until(is_taken, "the update acknowledged", CONVERGES_WITHIN_S)

    def _set_alarm(self, state: str) -> None:
        wait_until(
            lambda: self._tries(
                "cloudwatch", "set_alarm_state", AlarmName=ALARM, StateValue=state, StateReason="by hand"
            ),
            f"the alarm {state}",
            CONVERGES_WITHIN_S,
        )

    def _tries(self, service: str, operation: str, **members: Any) -> bool:
        """False where control died under it."""
        try:
            getattr(self.platform.client(service), operation)(**members)
        except BotoCoreError:
            return False
        except ClientError as error:
            hold(error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, f"refused: {error}")
            return False
        return True

    def _bakes(self) -> bool:
        pending = described(self.platform, ENDPOINT).get("PendingDeploymentSummary", {})
        stages = [
            status for v in pending.get("ProductionVariants", []) for status in v.get("VariantStatus", [])
        ]
        return any(stage["Status"] == "Baking" for stage in stages)

    def _ends_with(self, config: str, verdict: str) -> float:
        """Waits for the end, and until nothing but that fleet is left; when the end was seen."""
        began = time.monotonic()
        found = settled(self.platform, ENDPOINT, CONVERGES_WITHIN_S)
        done = time.time()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        seen = (found["EndpointStatus"], found["EndpointConfigName"])
        hold(seen == ("InService", config), f"ended {seen}: {found.get('FailureReason')}")
        one_fleet(self.platform, INSTANCES, CONVERGES_WITHIN_S)
        time.sleep(TRAILING_S)
        one_fleet(self.platform, INSTANCES, CONVERGES_WITHIN_S)
        wait_until(lambda: self._verdict() == verdict, f"the verdict {verdict}", CONVERGES_WITHIN_S)
        return done

    def _verdict(self) -> str:
        try:
            return str(newest_record(self.platform, ENDPOINT)["Verdict"])
        except AdminError:
            return ""

    def _judge(self, known: int, began: float, done: float, old: str, new: str) -> None:
        self.load.until(20)
        answers = self.load.answers[known:]
        failed = failures(answers)
        hold(not failed, f"{sum(failed.values())} requests failed: {failed.most_common(2)}")
        wrong = [a for a in asked_between(answers, 0.0, began) if a.who != old]
        wrong += [a for a in asked_between(answers, done, float("inf")) if a.who != new]
        hold(not wrong, f"{len(wrong)} answered by the wrong version")
