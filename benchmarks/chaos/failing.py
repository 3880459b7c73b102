"""Updates to versions that fail, with every strategy: the old one loses nothing, and takes everything back.

Each version fails in its own way, as users' scripts do. A request may fail only where the new version had it. That is
counted on both ends: the client's failures and right answers of the new version together are CloudWatch's Invocations
of its configuration, exactly. How large a part of the traffic it had is checked as well.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.experiment import SABOTAGE_DIR, Conditions, hold
from benchmarks.chaos.updates import rate
from benchmarks.chaos.updates_load import Answer, PacedLoad, asked_between, deviation, failures, per_second
from benchmarks.chaos.updates_versions import (
    FIRST_SHARE,
    VARIANT,
    configure,
    metric_settles_at,
    newest_record,
    one_fleet,
    script,
    script_questions,
    seconds,
    serving,
    settled,
    steps_of,
    strategies,
)
from benchmarks.platform import Platform

ENDPOINT = "guarded"
OLD, NEW = "old", "new"
WAIT_S = 45
"""Longer than any of the failures takes to show: the first step is the only one."""

STARTUP_S = 8
ROLLS_BACK_WITHIN_S = 5.0
BETWEEN = 200


@dataclass(frozen=True, slots=True)
class Failing:
    """A version that fails; `cause` is what the endpoint's FailureReason must say of it."""

    content: bytes
    cause: str
    takes_traffic: bool = False
    has_alarm: bool = False


VERSIONS: Mapping[str, Failing] = {
    "errors": Failing(
        script(2, before="raise RuntimeError('this version never works')"),
        "in ALARM state",
        takes_traffic=True,
        has_alarm=True,
    ),
    "crash": Failing(script(2, prelude="import os\nos._exit(3)"), "did not pass the ping health check"),
    "hang": Failing(script(2, load="time.sleep(3600)"), f"within {STARTUP_S} s"),
    "leak": Failing(
        script(2, prelude="held = []", before="held.append(bytearray(b'x') * (4 << 20))"),
        "of memory and ml.t2.medium has",
        takes_traffic=True,
    ),
}


@dataclass(slots=True)
class _Seen:
    """Of all cases together."""

    cases: int = 0
    failed: int = 0
    exposed: int = 0
    after_alarm_s: float = 0.0
    after_death_s: float = 0.0


def every_way(conditions: Conditions) -> str:
    chosen = [(how, strategy) for how in VERSIONS for strategy in strategies(0)]
    if not conditions.sabotage:
        conditions.random.shuffle(chosen)
    environment = {
        "CLARY_STARTUP_TIMEOUT_S": str(STARTUP_S),
        "CLARY_SMALL_INSTANCES": "1",
        "PYTHONPATH": str(SABOTAGE_DIR),
    }
    seen = _Seen()
    with conditions.platform(**environment) as platform:
        configure(platform, OLD, script(1))
        with (
            serving(platform, ENDPOINT, OLD),
            PacedLoad(platform, ENDPOINT, script_questions((OLD, NEW)), rate()) as load,
        ):
            load.until(BETWEEN)
            for how, strategy in chosen:
                _Case(platform, load, seen, how, strategy).run()
    return (
        f"{seen.cases} updates rolled back; {len(load.answers):,} requests at {per_second(load.answers):.0f} a second; "
        f"{seen.exposed:,} went to a new version, {seen.failed:,} of them failed, 0 others; rollback began at most "
        f"{seen.after_alarm_s:.1f} s after the alarm, {seen.after_death_s:.1f} s after the end of an instance"
    )


class _Case:
    """One version that fails, deployed with one strategy."""

    def __init__(self, platform: Platform, load: PacedLoad, seen: _Seen, how: str, strategy: str) -> None:
        self._platform, self._load, self._seen = platform, load, seen
        self._how, self._strategy, self._version = how, strategy, VERSIONS[how]
        self._config = f"{how}-{strategy}".replace(" ", "-")
        self._alarm = f"{self._config}-alarm"

    def run(self) -> None:
        before = one_fleet(self._platform)
        known, began = len(self._load.answers), time.time()
        self._deploy()
        found = settled(self._platform, ENDPOINT)
        done = time.time()
        self._is_as_before(found)
        after = one_fleet(self._platform)
        is_kept = self._strategy == "rolling" or after == before
        self._hold(is_kept, f"{len(before & after)} of {len(before)} old instances are the same")
        self._load.until(BETWEEN)
        self._judge(self._load.answers[known:], began, done)
        self._seen.cases += 1

    def _deploy(self) -> None:
        configure(self._platform, self._config, self._version.content)
        policy: dict[str, Any] = dict(strategies(WAIT_S)[self._strategy])
        if self._version.has_alarm:
            self._put_alarm()
            policy["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": self._alarm}]}
        self._platform.client("sagemaker").update_endpoint(
            EndpointName=ENDPOINT, EndpointConfigName=self._config, DeploymentConfig=policy
        )

    def _put_alarm(self) -> None:
        """On the errors of the new version alone, of ten seconds."""
        dimensions = {"EndpointName": ENDPOINT, "VariantName": VARIANT, "EndpointConfigName": self._config}
        self._platform.client("cloudwatch").put_metric_alarm(
            AlarmName=self._alarm,
            Namespace="AWS/SageMaker",
            MetricName="Invocation5XXErrors",
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            Statistic="Sum",
            Period=10,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="notBreaching",
        )

    def _is_as_before(self, found: Mapping[str, Any]) -> None:
        seen = (found["EndpointStatus"], found["EndpointConfigName"])
        self._hold(seen == ("InService", OLD), f"ended {seen}")
        reason = found.get("FailureReason", "")
        cause = self._alarm if self._version.has_alarm else self._version.cause
        self._hold(cause in reason, f"the reason does not say {cause!r}: {reason[:300]!r}")

    def _judge(self, answers: list[Answer], began: float, done: float) -> None:
        record = newest_record(self._platform, ENDPOINT)
        self._hold(record["Verdict"] == "rolled-back", f"the record's verdict is {record['Verdict']}")
        (back,) = steps_of(record, "rolling back")
        self._was_quick(record, seconds(back["At"]))
        exposed = [answer for answer in answers if answer.failed or answer.who == NEW]
        early_or_late = [a for a in exposed if a.told_at < began or a.asked_at > done]
        self._hold(not early_or_late, f"{len(early_or_late)} reached the new version out of its time")
        if not self._version.takes_traffic:
            self._hold(not exposed, f"{len(exposed)} failed: {failures(exposed).most_common(2)}")
        served = metric_settles_at(self._platform, "Invocations", ENDPOINT, len(exposed), self._config)
        self._hold(
            served == len(exposed),
            f"{len(exposed)} requests failed or were answered by the new version, which had {served}: "
            f"{failures(exposed).most_common(3)}",
        )
        shifts = steps_of(record, "traffic shifted")
        self._hold(len(shifts) == self._version.takes_traffic, f"traffic was shifted {len(shifts)} times")
        if shifts:
            self._was_small(asked_between(answers, seconds(shifts[0]["At"]), seconds(back["At"])))
        self._seen.exposed += len(exposed)
        self._seen.failed += sum(failures(exposed).values())

    def _was_quick(self, record: Mapping[str, Any], back: float) -> None:
        """Counted from what gave the reason: the alarm's change, or the end of the last instance."""
        if self._version.has_alarm:
            found = self._platform.client("cloudwatch").describe_alarm_history(
                AlarmName=self._alarm, HistoryItemType="StateUpdate"
            )["AlarmHistoryItems"]
            moments = [seconds(item["Timestamp"]) for item in found if "to ALARM" in item["HistorySummary"]]
            took_s = back - moments[-1]
            self._seen.after_alarm_s = max(self._seen.after_alarm_s, took_s)
        else:
            ends = [seconds(step["At"]) for step in record["Steps"] if step["Step"] == "instance exited"]
            took_s = back - max(end for end in ends if end <= back)
            self._seen.after_death_s = max(self._seen.after_death_s, took_s)
        self._hold(took_s <= ROLLS_BACK_WITHIN_S, f"the rollback began {took_s:.1f} s after its reason")

    def _was_small(self, answers: list[Answer]) -> None:
        share = FIRST_SHARE[self._strategy]
        hits = sum(answer.failed or answer.who == NEW for answer in answers)
        off = deviation(hits, len(answers) * share, len(answers) * share * (1 - share))
        self._hold(off <= 3.0, f"{hits} of {len(answers)} requests reached the new version: {off:+.1f} σ")

    def _hold(self, promise: bool, seen: str) -> None:
        hold(promise, f"{self._how}, {self._strategy}: {seen}")
