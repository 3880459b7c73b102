"""Any process dies at any time while endpoints come and go: what was acknowledged comes true, nothing else stays."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

from benchmarks.chaos.caller import Caller
from benchmarks.chaos.experiment import SABOTAGE_DIR, Broken, Conditions, hold, wait_until
from benchmarks.chaos.remains import instance_directories, instance_processes, minders, nothing_is_left
from benchmarks.platform import Platform, regressor
from clary.links import processes

THREADS = 3
KILLS = 40
INSTANCES = 2
CONVERGES_WITHIN_S = 30.0
VICTIMS = (
    ("control",),
    ("host",),
    ("gateway-0",),
    ("gateway-1",),
    ("supervisor",),
    ("control", "supervisor"),
    ("host", "supervisor"),
    ("gateway-0", "supervisor"),
    ("control", "host", "supervisor"),
)
SHORTEST_S = 0.005
"""Between two kills of one blow: about what the supervisor takes to start again what was killed first."""


def everything_at_random(conditions: Conditions) -> str:
    booster, _ = regressor(trees=5, depth=3)
    random = conditions.random
    with conditions.platform(CLARY_RESTART_AT_ONCE="1", PYTHONPATH=str(SABOTAGE_DIR)) as platform:
        platform.deploy("storm", platform.upload(booster), instances=INSTANCES)
        is_over = threading.Event()
        with ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(_come_and_go, platform, f"storm-{n}", is_over) for n in range(THREADS)]
            try:
                _kill_at_random(platform, random, is_over)
            finally:
                is_over.set()
            lives = sum(one.result() for one in running)
        _only_the_first_is_left(platform)
        platform.stop()
        nothing_is_left(platform.settings)
    return f"{KILLS} kills while {lives} endpoints came and went; every one did, and nothing of them is left"


def _come_and_go(platform: Platform, name: str, is_over: threading.Event) -> int:
    caller, lives = Caller(platform, CONVERGES_WITHIN_S), 0
    try:
        while not is_over.is_set():
            caller.create(name, "storm")
            caller.wait(name, "InService")
            caller.delete(name)
            caller.wait(name, "gone")
            lives += 1
    except Broken:
        is_over.set()
        raise
    return lives


def _kill_at_random(platform: Platform, random: Random, is_over: threading.Event) -> None:
    for _ in range(KILLS):
        if is_over.wait(random.uniform(0.2, 1.2)):
            return
        victims = random.choice(VICTIMS)
        for name in victims:
            processes.signal(platform.process(name), signal.SIGKILL)
            time.sleep(random.uniform(0, SHORTEST_S))
        if "supervisor" in victims:
            platform.start()


def _only_the_first_is_left(platform: Platform) -> None:
    settings = platform.settings
    Caller(platform, CONVERGES_WITHIN_S).wait("storm", "InService")

    def counts() -> set[int]:
        return {
            len(found)
            for found in (instance_directories(settings), minders(settings), instance_processes(settings))
        }

    wait_until(lambda: counts() == {INSTANCES}, "one fleet", CONVERGES_WITHIN_S)
    time.sleep(1.0)
    hold(counts() == {INSTANCES}, f"{counts()} instances")
