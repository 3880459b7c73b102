"""`clary restart` under load: on connections that are busy, that are often idle, and that are idle for seconds."""

import argparse
import contextlib
import io
import os
import time

from benchmarks.chaos.experiment import Broken, Conditions, hold
from benchmarks.chaos.ledger import Ledger, served_settles_at
from benchmarks.chaos.paced import Paced
from benchmarks.platform import Platform, regressor
from clary.cli import CommandError, restart
from clary.supervisor import names_of, roles

ENDPOINT = "restarted"
LOADED_S = 2.0
LOADS: tuple[tuple[float | None, int], ...] = ((None, 2), (200.0, 32), (4.0, 16))
"""Requests a second, connections: always one under way; one in 0.16 s on each; one in 4 s on each."""


def times() -> int:
    return int(os.environ.get("CHAOS_RESTARTS", "3"))


def everything(conditions: Conditions) -> str:
    booster, rows = regressor(trees=20)
    with conditions.platform() as platform, contextlib.ExitStack() as loads:
        platform.deploy(ENDPOINT, platform.upload(booster), instances=2)
        running = [
            loads.enter_context(
                Paced(platform, ENDPOINT, {"model": booster}, rows, rate=rate, connections=connections)
            )
            for rate, connections in LOADS
        ]
        for _ in range(times()):
            time.sleep(LOADED_S)
            _restart(platform)
            for load in running:
                _must_be_whole(load.ledger)
        time.sleep(LOADED_S)
        loads.close()
        for load in running:
            _must_be_whole(load.ledger)
        asked = sum(load.ledger.asked for load in running)
        count = served_settles_at(platform, ENDPOINT, asked)
        hold(count == asked, f"the clients asked {asked:,}, CloudWatch says {count:,}")
    ledgers = ", ".join(f"{load.ledger.asked:,}" for load in running)
    return f"{times()} restarts of everything; {ledgers} asked on busy, idle and long idle connections, all right"


def _restart(platform: Platform) -> None:
    before = {role: _pids(platform, role) for role in roles(platform.settings)}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            restart.run(argparse.Namespace(data_dir=str(platform.data_dir)))
    except CommandError as error:
        raise Broken(f"`clary restart` failed: {error}") from error
    for role, old in before.items():
        new = _pids(platform, role) - old
        hold(len(new) == 1, f"{role} was not replaced by one: {old}, then {new} more")


def _pids(platform: Platform, role: str) -> set[int]:
    found = [platform.process(name) for name in names_of(role, platform.settings)]
    return {identity.pid for identity in found if identity is not None}


def _must_be_whole(ledger: Ledger) -> None:
    hold(not ledger.wrong and not ledger.broken, str(ledger))
