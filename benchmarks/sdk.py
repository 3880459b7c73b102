"""The SageMaker SDK 2 as its users see it: how long `deploy()` takes, and what `predict` adds to boto3.

The SDK is no requirement of anything here, so a Python that has it is named by `BENCH_SDK2_PYTHON`. Without it the page
says that this was not measured.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.platform import Platform, archive, regressor
from benchmarks.report import Table, verdict
from clary.cli import run as clary_run

SCRIPT = Path(__file__).with_name("script") / "sdk.py"
SETTING = "BENCH_SDK2_PYTHON"
CALLS = int(os.environ.get("BENCH_ROUNDS", "3")) * 500
OWN_BAR_S = 2.0
PREDICT_BAR = 1.10
_VERSION = "import importlib.metadata; print(importlib.metadata.version('sagemaker'))"


def run() -> list[Table]:
    python = os.environ.get(SETTING, "")
    if not python:
        return [
            _not_measured(
                f"{SETTING} names no Python that has the SageMaker SDK 2 (`pip install 'sagemaker<3'`)"
            )
        ]
    asked = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=False)
    if not asked.stdout.startswith("2."):
        found = asked.stdout.strip() or asked.stderr.strip().rpartition("\n")[2]
        return [_not_measured(f"{SETTING}={python} has no SageMaker SDK 2 ({found})")]
    booster, rows = regressor()
    row = ",".join(f"{value:.7g}" for value in rows[0])
    with tempfile.TemporaryDirectory() as folder, Platform() as platform:
        path = Path(folder) / "model.tar.gz"
        path.write_bytes(archive({"xgboost-model": bytes(booster.save_raw("ubj"))}))
        warm = platform.upload_archive(path.read_bytes(), "warm.tar.gz")
        platform.deploy("warm", warm)
        platform.remove("warm")
        answer = Path(folder) / "found.json"
        command = [python, str(SCRIPT), str(path), row, str(CALLS), str(answer)]
        subprocess.run(command, env=clary_run.environment(platform.running), check=True)
        found = json.loads(answer.read_text())
    return [_deploy(found), _predict(found)]


def _not_measured(why: str) -> Table:
    print(f"NOT MEASURED: {why}", file=sys.stderr, flush=True)
    return Table("SageMaker SDK 2: deploy() and predict()", ("not measured",), [(why,)])


def _deploy(found: dict[str, Any]) -> Table:
    slept = sum(found["slept"])
    rest = found["deploy_s"] - slept
    sleeps = " + ".join(f"{seconds:g}" for seconds in found["slept"]) or "none"
    return Table(
        f"SageMaker SDK {found['version']}: deploy() of a warm model",
        ("deploy() returns after, s", "of which the SDK's own sleep, s", "the rest, s", "bar of the rest"),
        [
            (
                f"{found['deploy_s']:.2f}",
                f"{slept:.2f} ({sleeps})",
                f"{rest:.2f}",
                f"≤ {OWN_BAR_S:g}: {verdict(rest, OWN_BAR_S, at_least=False)}",
            )
        ],
        [
            "the sleep is before the SDK's first look and no server can shorten it "
            "([ADR 0017](../adr/0017-held-describe.md)); `deploy(wait=False)` and boto3's waiter do without",
            "the rest: CreateModel, CreateEndpointConfig, CreateEndpoint, DescribeEndpoint, and the SDK's own work",
        ],
    )


def _predict(found: dict[str, Any]) -> Table:
    medians = {name: statistics.median(found[name]) for name in ("boto3_ms", "sdk_ms")}
    ratio = medians["sdk_ms"] / medians["boto3_ms"]
    table = Table(
        "Predictor.predict beside boto3's invoke_endpoint",
        ("client", "p50 ms", "p90 ms", "p99 ms", "p50 / boto3's", "bar"),
        notes=[
            f"the same endpoint, single-row XGBoost, {len(found['sdk_ms']):,} calls each in turn; "
            "both make the CSV of a list of numbers and read the answer",
        ],
    )
    bar = f"≤ {PREDICT_BAR:.2f}: {verdict(ratio, PREDICT_BAR, at_least=False)}"
    for name, client, words in (
        ("boto3_ms", f"boto3 {found['boto3']}", ("", "")),
        ("sdk_ms", f"SageMaker SDK {found['version']}", (f"{ratio:.2f}", bar)),
    ):
        hundredths = statistics.quantiles(found[name], n=100)
        table.rows.append((client, *(f"{hundredths[p - 1]:.2f}" for p in (50, 90, 99)), *words))
    return table
