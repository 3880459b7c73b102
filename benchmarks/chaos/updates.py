"""Updates and new numbers under load: every answer is one that was due when it was asked for.

An update may be answered by either version while it is under way, by the old one before it and by the new one after
InService. The client's account is checked against CloudWatch's, the shares of the traffic against the record's.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.experiment import Conditions, hold
from benchmarks.chaos.updates_load import (
    Answer,
    PacedLoad,
    Questions,
    asked_between,
    deviation,
    failures,
    per_second,
)
from benchmarks.chaos.updates_versions import (
    INSTANCES,
    VARIANT,
    built_in,
    metric_settles_at,
    newest_record,
    one_fleet,
    scripted,
    seconds,
    serving,
    settled,
    steps_of,
    strategies,
)
from benchmarks.platform import Platform

ENDPOINT = "updated"
VERSIONS = ("one", "two")
WAITS_S = (1, 0)
"""Between the steps, run by run. Without a wait nothing but acknowledgements keeps a step from coming too early."""

BETWEEN = 300
"""Requests answered between two updates."""


def runs() -> int:
    return int(os.environ.get("CHAOS_RUNS", "2"))


def rate() -> float:
    return float(os.environ.get("CHAOS_RATE", "500"))


def of_built_in_handlers(conditions: Conditions) -> str:
    return _every_strategy(conditions, built_in)


def of_scripts(conditions: Conditions) -> str:
    """Nobody repeats a request that a script may have begun: each that breaks is seen."""
    return _every_strategy(conditions, scripted)


def numbers(conditions: Conditions) -> str:
    """Weights and counts: those processes that stay are the same ones."""
    changes = [(2.0, 4), (2.0, 6), (1.0, 3), (0.5, 5), (1.0, 2), (1.0, INSTANCES)] * runs()
    with conditions.platform() as platform:
        questions = scripted(platform, VERSIONS)
        with serving(platform, ENDPOINT, VERSIONS[0]) as first:
            before = one_fleet(platform)
            with PacedLoad(platform, ENDPOINT, questions, rate()) as load:
                load.until(BETWEEN)
                for weight, count in changes:
                    _renumber(platform, weight, count)
                    after = one_fleet(platform, count)
                    is_same = after <= before or before <= after
                    hold(
                        is_same, f"{len(before)} → {count} instances, {len(before & after)} of them the same"
                    )
                    load.until(BETWEEN)
                    _only_from(load.answers, (VERSIONS[0],), f"with {count} instances")
                    before = after
            _account(platform, load.answers, first)
    return (
        f"{len(changes)} changes; {len(load.answers):,} requests at {per_second(load.answers):.0f} a second, as many "
        "as CloudWatch counts, 0 failed; all processes but those added or retired were the same every time"
    )


@dataclass(frozen=True, slots=True)
class _Update:
    """`began` before it was asked for, `done` when somebody had read that it is in service."""

    strategy: str
    old: str
    new: str
    began: float
    done: float
    shares: tuple[tuple[float, float, float], ...]  # from, to, the new version's share meanwhile


def _every_strategy(conditions: Conditions, make: Callable[[Platform, tuple[str, ...]], Questions]) -> str:
    chosen = [(name, WAITS_S[run % 2]) for run in range(runs()) for name in strategies(0)]
    conditions.random.shuffle(chosen)
    if conditions.sabotage:
        chosen.sort(key=lambda way: way[1])  # it shows soonest without waits
    updates: list[_Update] = []
    with conditions.platform() as platform:
        questions = make(platform, VERSIONS)
        with serving(platform, ENDPOINT, VERSIONS[0]) as asked:
            with PacedLoad(platform, ENDPOINT, questions, rate()) as load:
                load.until(BETWEEN)
                for number, (strategy, wait_s) in enumerate(chosen):
                    old, new = VERSIONS[number % 2], VERSIONS[(number + 1) % 2]
                    known = len(load.answers)
                    updates.append(_update(platform, strategy, wait_s, old, new))
                    one_fleet(platform)
                    load.until(BETWEEN)
                    _judge(load.answers[known:], [updates[-1]])
            _judge(load.answers, updates)
            _account(platform, load.answers, asked)
    off = _shares(load.answers, updates)
    return (
        f"{len(updates)} updates ({runs()} with each strategy, with {WAITS_S[0]} s and without waits in turn); "
        f"{len(load.answers):,} requests at {per_second(load.answers):.0f} a second, as many as CloudWatch counts: 0 "
        f"failed, 0 answered by a version that was not due; shares while they stood: {off:+.1f} σ"
    )


def _update(platform: Platform, strategy: str, wait_s: int, old: str, new: str) -> _Update:
    began = time.time()
    platform.client("sagemaker").update_endpoint(
        EndpointName=ENDPOINT, EndpointConfigName=new, DeploymentConfig=strategies(wait_s)[strategy]
    )
    found = settled(platform, ENDPOINT)
    done = time.time()
    seen = (found["EndpointStatus"], found["EndpointConfigName"])
    hold(seen == ("InService", new), f"{strategy}: ended {seen}: {found.get('FailureReason')}")
    record = newest_record(platform, ENDPOINT)
    hold(record["Verdict"] == "succeeded", f"{strategy}: the record's verdict is {record['Verdict']}")
    return _Update(strategy, old, new, began, done, _shares_in(record) if wait_s else ())


def _shares_in(record: dict[str, Any]) -> tuple[tuple[float, float, float], ...]:
    shifts = steps_of(record, "traffic shifted")
    ends = [seconds(step["At"]) for step in steps_of(record, "bake passed")]
    hold(len(shifts) == len(ends), f"{len(shifts)} shifts and {len(ends)} bakes")
    return tuple(
        (seconds(shift["At"]), end, float(shift["Evidence"]["shares"][f"{VARIANT} (new)"]))
        for shift, end in zip(shifts, ends, strict=True)
    )


def _judge(answers: Iterable[Answer], updates: list[_Update]) -> None:
    """Each answer against what was due between its question and its arrival."""
    answers = list(answers)
    failed = failures(answers)
    strategy = updates[-1].strategy if len(updates) == 1 else "any"
    hold(not failed, f"{strategy}: {sum(failed.values())} failed: {failed.most_common(2)}")
    last = float("-inf")
    for number, update in enumerate(updates):
        following = updates[number + 1].began if number + 1 < len(updates) else float("inf")
        for due, since, until in (
            (update.old, last, update.began),
            (update.new, update.done, following),
        ):
            wrong = [a for a in asked_between(answers, since, until) if a.who != due]
            what = "after its end" if due == update.new else "before it began"
            hold(not wrong, f"{update.strategy}: {len(wrong)} answered by the wrong version {what}")
        last = update.done


def _only_from(answers: Iterable[Answer], names: tuple[str, ...], when: str) -> None:
    answers = list(answers)
    failed = failures(answers)
    hold(not failed, f"{when}: {sum(failed.values())} failed: {failed.most_common(2)}")
    hold({answer.who for answer in answers} <= set(names), f"{when}: another version answered")


def _account(platform: Platform, answers: list[Answer], first: int) -> None:
    asked = len(answers) + first
    count = metric_settles_at(platform, "Invocations", ENDPOINT, asked)
    hold(count == asked, f"the client asked {asked:,}, CloudWatch says {count:,}")


def _shares(answers: list[Answer], updates: list[_Update]) -> float:
    """How far the new versions' part was off, over all steps of all updates together, in standard deviations."""
    hits, expected, variance = 0, 0.0, 0.0
    for update in updates:
        for since, until, share in update.shares:
            asked = asked_between(answers, since, until)
            hits += sum(answer.who == update.new for answer in asked)
            expected += len(asked) * share
            variance += len(asked) * share * (1 - share)
    off = deviation(hits, expected, variance)
    hold(abs(off) <= 3.0, f"{hits:,} answers of new versions where {expected:,.0f} were due: {off:+.1f} σ")
    return off


def _renumber(platform: Platform, weight: float, count: int) -> None:
    platform.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT,
        DesiredWeightsAndCapacities=[
            {"VariantName": VARIANT, "DesiredWeight": weight, "DesiredInstanceCount": count}
        ],
    )
    found = settled(platform, ENDPOINT)
    hold(
        found["EndpointStatus"] == "InService",
        f"ended {found['EndpointStatus']}: {found.get('FailureReason')}",
    )
    (variant,) = found["ProductionVariants"]
    seen = (variant["CurrentWeight"], variant["CurrentInstanceCount"])
    hold(seen == (weight, count), f"asked for {(weight, count)}, now {seen}")
