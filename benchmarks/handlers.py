"""A user's script against itself: through an instance, and in a loop in one process of the same environment.

The script takes one request at a time and cannot be batched, so one worker against one process is like with like:
whatever the platform adds shows in the ratio. Both take turns of a second; the ratio of a round is to the loops
before and after it, since a machine that others use changes its pace. What others take away is known too: the kernel
counts how long a process could have run and had no processor.
"""

import json
import os
import random
import runpy
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import direct, invocations, load
from benchmarks.platform import Platform, archive
from benchmarks.report import Table, verdict
from clary.domain.instances import InstanceStatus
from clary.links import instances as files

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
SCRIPTS = Path(__file__).with_name("script")
SECONDS = 1.0
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3")) * 3
CONNECTIONS = 32
BAR = 0.9
MOVES = (20, 330)  # how often the script walks its forest: for some 0.3 ms, and for some 5
STRAIGHT = f"instance, {CONNECTIONS} connections"


@dataclass(frozen=True, slots=True)
class Own:
    """What the script does by itself."""

    rate: float
    clear_rate: float  # as if a processor had always been free for it


@dataclass(slots=True)
class Readings:
    """Of one way to the script."""

    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    clear_ratios: list[float] = field(default_factory=list)
    errors: int = 0


def run() -> list[Table]:
    table = Table(
        "A script that cannot be batched, against its own rate in one process",
        ("script", "way", "answers/s", "of its own rate", "without waits", "p50 ms", "bar"),
        notes=[
            "its own rate: input_fn, predict_fn and output_fn, plain Python, in a loop in a process of the instance's "
            "environment; the instance: scikit-learn image, one worker, the default rung; clients on the same cores",
            f"{SECONDS:g} s in turn, {ROUNDS} rounds, medians; a round's ratio is to the loops just before and after",
            "without waits: as if the loop and the worker had never waited for a processor that something else had",
        ],
    )
    with tempfile.TemporaryDirectory() as folder, Platform() as platform:
        for moves in MOVES:
            _measure(table, platform, moves, Path(folder) / f"{moves}")
    return [table]


def _measure(table: Table, platform: Platform, moves: int, folder: Path) -> None:
    rows = _rows()
    contents = {
        "model.json": _model(moves),
        "code/inference.py": (SCRIPTS / "inference.py").read_bytes(),
    }
    bodies = _write(folder, contents, rows)
    name = f"script-{moves}"
    uri = platform.upload_archive(archive(contents), f"{name}.tar.gz")
    platform.deploy(name, uri, image=IMAGE, variables={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"})
    _check_answers(platform, name, contents, rows)
    instance = platform.only_instance()
    python = _python(platform, instance)
    signed = folder / "signed"
    load.write_requests(signed, invocations.signed(platform, name, rows))
    plain = [invocations.plain(row) for row in rows]
    ways: dict[str, Callable[[], _Run]] = {
        "instance, 1 connection": lambda: _straight(instance, plain, 1),
        STRAIGHT: lambda: _straight(instance, plain, CONNECTIONS),
        f"gateway with SigV4, {CONNECTIONS} connections": lambda: _through_gateway(platform, signed),
    }
    found, own = _in_turn(ways, lambda: _in_process(python, folder, bodies), _worker(platform, instance))
    platform.remove(name)
    _add(table, found, own)


def _check_answers(platform: Platform, name: str, contents: dict[str, bytes], rows: list[bytes]) -> None:
    """What is measured must be right: fifty rows against the script in this process."""
    script, model = runpy.run_path(str(SCRIPTS / "inference.py")), json.loads(contents["model.json"])
    runtime = platform.client("sagemaker-runtime")
    for row in rows[:50]:
        answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=row)["Body"].read()
        expected = script["predict_fn"](script["input_fn"](row.decode(), "text/csv"), model)
        assert json.loads(answer) == {"prediction": expected}, (answer, expected)


_Run = tuple[float, float, int]  # answers a second, p50 in µs, errors


def _in_turn(
    ways: dict[str, Callable[[], _Run]], loop: Callable[[], Own], worker: int
) -> tuple[dict[str, Readings], list[Own]]:
    found = {way: Readings() for way in ways}
    own = [loop()]
    for _ in range(ROUNDS):
        for way, ask in ways.items():
            readings = found[way]
            waited = _waited_s(worker)
            began = time.perf_counter()
            rate, p50, errors = ask()
            took = time.perf_counter() - began
            clear = took / (took - (_waited_s(worker) - waited))
            own.append(loop())
            beside = own[-2:]
            readings.rates.append(rate)
            readings.ratios.append(rate / statistics.fmean(each.rate for each in beside))
            readings.clear_ratios.append(rate * clear / statistics.fmean(each.clear_rate for each in beside))
            readings.p50_us.append(p50)
            readings.errors += errors
    return found, own


def _straight(instance: InstanceStatus, plain: list[bytes], connections: int) -> _Run:
    answers = direct.run(instance.address, plain, connections, SECONDS)
    return answers.rate, answers.percentile(50), answers.errors


def _through_gateway(platform: Platform, signed: Path) -> _Run:
    answers = load.run(platform.port, signed, CONNECTIONS, SECONDS)
    return answers.rate, answers.p50_us, answers.errors


def _in_process(python: Path, folder: Path, bodies: Path) -> Own:
    command = [str(python), str(SCRIPTS / "in_process.py"), str(folder), str(bodies), str(SECONDS)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return Own(found["calls"] / found["seconds"], found["calls"] / (found["seconds"] - found["waited"]))


def _add(table: Table, found: dict[str, Readings], own: list[Own]) -> None:
    rate, clear = (statistics.median(getattr(each, name) for each in own) for name in ("rate", "clear_rate"))
    table.rows.append(
        (f"{1e6 / clear:,.0f} µs", "in a loop", f"{rate:,.0f}", "", "", f"{1e3 / rate:.2f}", "")
    )
    for way, readings in found.items():
        ratio = statistics.median(readings.ratios)
        bar = f"≥ {BAR}: {verdict(ratio, BAR, at_least=True)}" if way == STRAIGHT else ""
        table.rows.append(
            (
                "",
                way + (f" ({readings.errors} errors)" if readings.errors else ""),
                f"{statistics.median(readings.rates):,.0f}",
                f"{ratio:.2f} ({min(readings.ratios):.2f}–{max(readings.ratios):.2f})",
                f"{statistics.median(readings.clear_ratios):.2f}",
                f"{statistics.median(readings.p50_us) / 1e3:.2f}",
                bar,
            )
        )


def _model(moves: int) -> bytes:
    chance = random.Random(1)
    trees = [_tree(chance, 6) for _ in range(50)]
    return json.dumps({"trees": trees, "moves": [number / 1e5 for number in range(moves)]}).encode()


def _tree(chance: random.Random, depth: int) -> Any:
    if depth == 0:
        return chance.random()
    return [chance.randrange(8), chance.random(), _tree(chance, depth - 1), _tree(chance, depth - 1)]


def _rows() -> list[bytes]:
    chance = random.Random(2)
    return [",".join(f"{chance.random():.4f}" for _ in range(8)).encode() for _ in range(1000)]


def _write(folder: Path, contents: dict[str, bytes], rows: list[bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    bodies = folder / "bodies"
    bodies.write_bytes(b"\n".join(rows))
    return bodies


def _python(platform: Platform, instance: InstanceStatus) -> Path:
    """The Python of the environment that the instance runs in: the first place where it looks for programs."""
    launch = files.read(_directory(platform, instance), files.LAUNCH, files.Launch)
    assert launch is not None
    return Path(launch.environment["PATH"].split(os.pathsep)[0]) / "python"


def _worker(platform: Platform, instance: InstanceStatus) -> int:
    """The process that holds the script: the last in the line of children that begins with the minder."""
    minder = files.minder_of(_directory(platform, instance))
    assert minder is not None
    return psutil.Process(minder.pid).children(recursive=True)[-1].pid


def _directory(platform: Platform, instance: InstanceStatus) -> Path:
    return platform.data_dir / "instances" / instance.instance_id


def _waited_s(pid: int) -> float:
    """Seconds in which the process could have run, but had no processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
