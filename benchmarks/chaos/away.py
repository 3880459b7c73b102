"""Supervisor and control are killed and stay dead for minutes, while one endpoint serves as fast as it goes.

Phases with them and without them take turns, each as long, so that what else the machine does hits both alike;
throughput and latency are compared phase by phase.
"""

import os
import signal
import statistics
import time
from collections.abc import Sequence

from benchmarks.chaos.experiment import Conditions, hold
from benchmarks.chaos.kills import wait_until_whole
from benchmarks.chaos.ledger import Ledger, served_settles_at
from benchmarks.chaos.paced import Paced, Stretch
from benchmarks.platform import Platform, regressor
from clary.links import processes

ENDPOINT = "left-alone"
VICTIMS = ("supervisor", "control")
CONNECTIONS = 16
PHASES = 4
SETTLES_S = 3.0
LEAST_RATE = 0.9
MOST_P99 = 1.5


def minutes() -> float:
    """Without a control plane, all phases together."""
    return float(os.environ.get("CHAOS_MINUTES", "1"))


def control_plane_down(conditions: Conditions) -> str:
    booster, rows = regressor(trees=20)
    phase_s = minutes() * 60 / PHASES
    with_it, without = list[Stretch](), list[Stretch]()
    with conditions.platform() as platform:
        platform.deploy(ENDPOINT, platform.upload(booster), instances=2)
        with Paced(platform, ENDPOINT, {"model": booster}, rows, connections=CONNECTIONS) as load:
            for number in range(PHASES):
                # with, without; without, with; …
                steps = [(with_it, True), (without, False)]
                for stretches, is_there in steps if number % 2 == 0 else reversed(steps):
                    _bring_about(platform, is_there)
                    stretches.append(_stretch(load, phase_s))
                    _must_be_whole(load.ledger, "with" if is_there else "without")
                    hold(is_there or _are_dead(platform), "somebody started what was to stay dead")
            _bring_about(platform, True)
        _must_be_whole(load.ledger, "in the end")
        count = served_settles_at(platform, ENDPOINT, load.ledger.asked)
        hold(count == load.ledger.asked, f"the client asked {load.ledger.asked:,}, CloudWatch says {count:,}")
    rates = f"{_rate(with_it):,.0f} requests a second with it, {_rate(without):,.0f} without"
    of_rate, of_p99 = _rate(without) / _rate(with_it), p99(without) / p99(with_it)
    figures = f"{rates} (× {of_rate:.2f}), p99 × {of_p99:.2f}"
    hold(of_rate >= LEAST_RATE and of_p99 <= MOST_P99, figures)
    return (
        f"{minutes():g} min without it in {PHASES} phases: {figures}; client: {load.ledger}; server: {count:,} "
        f"Invocations"
    )


def _stretch(load: Paced, seconds: float) -> Stretch:
    time.sleep(min(SETTLES_S, seconds / 4))
    mark = load.mark()
    time.sleep(seconds)
    return load.since(mark)


def _bring_about(platform: Platform, is_there: bool) -> None:
    if is_there and _are_dead(platform):
        platform.start()
        wait_until_whole(platform)
    elif not is_there:
        for name in VICTIMS:  # the supervisor first: it would start control again
            identity = platform.process(name)
            if identity is not None:
                processes.signal(identity, signal.SIGKILL)
                hold(not processes.wait_gone([identity], 10), f"{name} did not die")


def _are_dead(platform: Platform) -> bool:
    return all(platform.process(name) is None for name in VICTIMS)


def _rate(stretches: Sequence[Stretch]) -> float:
    return statistics.median(stretch.rate for stretch in stretches)


def p99(stretches: Sequence[Stretch]) -> float:
    """The median of the stretches' own."""
    return statistics.median(_p99(stretch) for stretch in stretches)


def _p99(stretch: Stretch) -> float:
    latencies = sorted(stretch.latencies)
    return latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)]


def _must_be_whole(ledger: Ledger, when: str) -> None:
    hold(not ledger.wrong and not ledger.broken, f"{when} the control plane: {ledger}")
