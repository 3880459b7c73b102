"""The endpoint reconciler in virtual time (tests/control/simulator), with many more stories than the tests tell.

`CHAOS_SEEDS` is how many. The sabotage takes each of its guarantees away in turn, and every time a law must break.
"""

import os
import re
import subprocess
import sys

from benchmarks.chaos.experiment import Broken, Conditions, hold
from benchmarks.report import ROOT

FEW = 200
"""Stories in which the lack of a guarantee must show."""


def seeds() -> int:
    return int(os.environ.get("CHAOS_SEEDS", "20000"))


def stories(conditions: Conditions) -> str:
    if conditions.sabotage:
        return _without_each(conditions.seed)
    broken, summary = _tell(conditions.seed, seeds())
    hold(not broken, f"{len(broken)} of {seeds():,} stories broke a law: {'; '.join(broken[:3])}")
    return summary


def _without_each(first: int) -> str:
    unnoticed, seen = [], []
    for guarantee in _guarantees():
        broken, _ = _tell(first, FEW, "--without", guarantee)
        if broken:
            seen.append(f"{guarantee} ({len(broken)})")
        else:
            unnoticed.append(guarantee)
    if unnoticed:
        return f"nobody notices that these are missing: {', '.join(unnoticed)}"
    raise Broken(f"stories of {FEW} that broke a law without: {', '.join(seen)}")


def _tell(first: int, count: int, *options: str) -> tuple[list[str], str]:
    """The laws that were broken, a line each, and the summary."""
    done = _simulator(str(count), "--first", str(first), "--jobs", str(os.cpu_count() or 1), *options)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        raise RuntimeError(f"the simulator did not run: {done.stderr[-500:]}")
    return [line for line in lines[:-1] if line.startswith("seed ")], lines[-1]


def _guarantees() -> list[str]:
    words = re.search(r"--without \{([^}]*)\}", _simulator("--help").stdout.replace("\n", " "))
    assert words is not None, "the simulator says what can be taken away"
    return [" ".join(word.split()) for word in words[1].split(",")]


def _simulator(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "control.simulator", *arguments],
        cwd=ROOT / "tests",
        env={**os.environ, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
