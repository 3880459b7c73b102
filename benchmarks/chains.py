"""An inference pipeline of five stages against the same five stages called in one process.

Each stage is a booster of its own: the first reads a row, the others the number before. In process they are called as
an instance calls them, with decoding and encoding, so what is left is what going from container to container costs. All
ways take turns, at one connection; medians of the rounds' medians.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from benchmarks import invocations, load
from benchmarks.platform import IMAGE, ROLE, Platform, archive, model_files, regressor
from benchmarks.report import Table, verdict
from clary.runtimes.contract import InvocationHead, InvocationRequest
from clary.runtimes.frameworks.xgboost.model import load as load_model

STAGES = 5
SECONDS = 2.0
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3")) * 2
BAR_US = 300
CHAIN, SINGLE = "bench-chain", "bench-first-stage"
CSV = "text/csv"


def run() -> list[Table]:
    boosters, rows = _boosters()
    bodies = [",".join(f"{value:.7g}" for value in row).encode() for row in rows[:5000]]
    with tempfile.TemporaryDirectory() as folder, Platform() as platform:
        stages = [_stage(Path(folder) / f"{number}", each) for number, each in enumerate(boosters)]
        _deploy(platform, boosters)
        _check_answers(platform, stages, bodies)
        signed = {name: Path(folder) / name for name in (CHAIN, SINGLE)}
        ways: dict[str, Callable[[], float]] = {
            "in process": lambda: _in_process(stages, bodies),
            CHAIN: lambda: _through_gateway(platform, signed[CHAIN]),
            SINGLE: lambda: _through_gateway(platform, signed[SINGLE]),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for name, path in signed.items():
            load.write_requests(path, invocations.signed(platform, name, bodies))
        for _ in range(ROUNDS):
            for way, ask in ways.items():
                found[way].append(ask())
    return [_table({way: statistics.median(times) for way, times in found.items()})]


def _table(p50_us: dict[str, float]) -> Table:
    own, chain, single = p50_us["in process"], p50_us[CHAIN], p50_us[SINGLE]
    added = (chain - own) / STAGES
    rows: list[tuple[str, ...]] = [
        (f"{STAGES} stages in process", f"{own:,.0f}", "", ""),
        ("the first stage, through the gateway with SigV4", f"{single:,.0f}", "", ""),
        (
            f"{STAGES} containers in a row, through the gateway with SigV4",
            f"{chain:,.0f}",
            f"{added:,.0f}",
            f"≤ {BAR_US}: {verdict(added, BAR_US, at_least=False)}",
        ),
    ]
    notes = [
        "XGBoost, single rows of CSV, one connection; every container predicts with a booster of its own",
        "added: beyond the stages in process, a stage; it includes a fifth of what any request costs at the gateway",
        f"each further stage costs {(chain - single) / (STAGES - 1):,.0f} µs, its prediction included",
        f"{SECONDS:g} s in turn, {ROUNDS} rounds, medians of p50",
    ]
    columns = ("way", "p50 µs", "added per stage µs", "bar")
    return Table("A pipeline of five containers, against its stages in one process", columns, rows, notes)


def _boosters() -> tuple[list[xgboost.Booster], "np.ndarray[Any, Any]"]:
    """The first over rows, the others over the number before."""
    first, rows = regressor()
    values = np.linspace(0, 20, 1000, dtype=np.float32).reshape(-1, 1)
    others = [
        xgboost.train(
            {"max_depth": 4, "nthread": 1}, xgboost.DMatrix(values, label=values[:, 0] + number), 20
        )
        for number in range(1, STAGES)
    ]
    return [first, *others], rows


def _stage(folder: Path, booster: xgboost.Booster) -> Callable[[bytes], bytes]:
    """What an instance does with a request's body, without the instance."""
    folder.mkdir()
    for name, content in model_files(booster).items():
        (folder / name).write_bytes(content)
    model = load_model(folder, {}, 1)
    head = InvocationHead(CSV, CSV, "", ())
    return lambda body: model.predict([InvocationRequest(head, body)])[0].body


def _deploy(platform: Platform, boosters: list[xgboost.Booster]) -> None:
    uris = [
        platform.upload_archive(archive(model_files(each)), f"chain/{number}.tar.gz")
        for number, each in enumerate(boosters)
    ]
    platform.deploy(SINGLE, uris[0])
    sagemaker = platform.client("sagemaker")
    containers = [{"Image": IMAGE, "ModelDataUrl": uri} for uri in uris]
    sagemaker.create_model(ModelName=CHAIN, ExecutionRoleArn=ROLE, Containers=containers)
    platform.serve(CHAIN)


def _check_answers(platform: Platform, stages: list[Callable[[bytes], bytes]], bodies: list[bytes]) -> None:
    """What is measured must be right."""
    runtime = platform.client("sagemaker-runtime")
    for body in bodies[:50]:
        answer = runtime.invoke_endpoint(EndpointName=CHAIN, ContentType=CSV, Accept=CSV, Body=body)
        expected = _through(stages, body)
        assert answer["Body"].read() == expected, (body, expected)


def _through(stages: list[Callable[[bytes], bytes]], body: bytes) -> bytes:
    for stage in stages:
        body = stage(body)
    return body


def _in_process(stages: list[Callable[[bytes], bytes]], bodies: list[bytes]) -> float:
    took: list[float] = []
    end = time.perf_counter() + SECONDS
    number = 0
    while (began := time.perf_counter()) < end:
        _through(stages, bodies[number % len(bodies)])
        took.append((time.perf_counter() - began) * 1e6)
        number += 1
    return statistics.median(took)


def _through_gateway(platform: Platform, signed: Path) -> float:
    found = load.run(platform.port, signed, 1, SECONDS)
    assert not found.errors, found
    return found.p50_us
