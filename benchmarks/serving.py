"""Single-row XGBoost over HTTP: through the gateway with SigV4, straight to the instance, and what they stand beside.

Every server answers the same 10,000 distinct rows; the gateway's requests are signed one by one beforehand by
botocore, so that no verdict could be remembered.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import invocations, load
from benchmarks.platform import Platform, regressor
from benchmarks.report import Table, verdict

CONNECTIONS = (1, 8, 32, 128)
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ENDPOINT = "bench-xgboost"


@dataclass(slots=True)
class System:
    """One line of the table: a server, how to ask it, which processes it is made of."""

    name: str
    port: int
    requests: Path
    pids: list[int]


def run() -> list[Table]:
    booster, rows = regressor()
    bodies = [",".join(f"{value:.7g}" for value in row).encode() for row in rows]
    with tempfile.TemporaryDirectory() as directory, Platform() as platform:
        model = Path(directory) / "model.ubj"
        booster.save_model(model)
        platform.deploy(ENDPOINT, platform.upload(booster))
        plain = Path(directory) / "plain"
        load.write_requests(plain, map(invocations.plain, bodies))
        signed = Path(directory) / "signed"
        with (
            _server("constant", model) as floor,
            _server("bare", model) as bare,
            _server("fastapi", model) as peer,
            _instance(model, Path(directory)) as instance,
        ):
            systems = [
                System("bare uvloop, constant answer (the floor)", floor[0], plain, floor[1]),
                System("bare uvloop, model in process, Python API", bare[0], plain, bare[1]),
                System("FastAPI + uvicorn, 2 workers (a peer)", peer[0], plain, peer[1]),
                System("Clary's instance, straight", instance[0], plain, instance[1]),
                System("Clary through the gateway, SigV4", platform.port, signed, _clary_pids(platform)),
            ]
            _check_answers(platform, booster, rows)
            return [
                _measure(
                    systems,
                    lambda: load.write_requests(signed, invocations.signed(platform, ENDPOINT, bodies)),
                )
            ]


def _measure(systems: list[System], sign: Callable[[], None]) -> Table:
    """A signature is good for five minutes, so `sign` is called before each number of connections.

    Each number of connections in turn over all systems, several rounds: medians, so drift hits all alike."""
    found: dict[tuple[str, int], list[load.Load]] = {}
    for connections in CONNECTIONS:
        sign()
        for _ in range(ROUNDS):
            for system in systems:
                result = load.run(system.port, system.requests, connections, SECONDS)
                found.setdefault((system.name, connections), []).append(result)
    table = Table(
        "Single-row XGBoost (100 trees, depth 6, 8 features), CSV in and out",
        ("system", *(f"{c} conn: req/s · p50 · p99 ms" for c in CONNECTIONS), "errors", "memory MiB (PSS)"),
    )
    for system in systems:
        cells = [cell(found[system.name, c]) for c in CONNECTIONS]
        errors = sum(result.errors for c in CONNECTIONS for result in found[system.name, c])
        table.rows.append((system.name, *cells, str(errors), f"{_pss_mib(system.pids):.0f}"))
    floor, _, peer, straight, gateway = (system.name for system in systems)
    of_floor = rate(found[gateway, 128]) / rate(found[floor, 128])
    of_peer = rate(found[gateway, 128]) / rate(found[peer, 128])
    added = p50(found[gateway, 1]) - p50(found[straight, 1])
    table.notes += [
        f"gateway / floor at 128: {of_floor:.2f} (bar 0.25: {verdict(of_floor, 0.25, at_least=True)}; aim 0.42)",
        f"gateway / FastAPI at 128: {of_peer:.1f} (bar 8: {verdict(of_peer, 8, at_least=True)})",
        f"gateway − straight, p50 at 1 connection: {added:.0f} µs (bar 150: {verdict(added, 150, at_least=False)})",
        f"wrk, {SECONDS:g} s a run, median of {ROUNDS} rounds, systems in turn; 10,000 distinct requests replayed",
    ]
    return table


def cell(results: list[load.Load]) -> str:
    p99 = statistics.median(result.p99_us for result in results)
    return f"{rate(results):,.0f} · {p50(results) / 1000:.2f} · {p99 / 1000:.2f}"


def rate(results: list[load.Load]) -> float:
    return statistics.median(result.rate for result in results)


def p50(results: list[load.Load]) -> float:
    return statistics.median(result.p50_us for result in results)


def _check_answers(platform: Platform, booster: Any, rows: Any) -> None:
    """What is measured must be right: fifty rows against the booster in this process."""
    import xgboost

    runtime = platform.client("sagemaker-runtime")
    expected = booster.predict(xgboost.DMatrix(rows[:50]))
    for row, value in zip(rows[:50], expected, strict=True):
        body = ",".join(f"{cell:.7g}" for cell in row)
        answer = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/csv", Body=body)[
            "Body"
        ].read()
        assert abs(float(answer) - float(value)) < 1e-5, (answer, value)


@contextmanager
def _server(kind: str, model: Path) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.floors", kind, "--port", str(port), "--model", str(model)]
    with running(command, port) as pids:
        yield port, pids()


@contextmanager
def _instance(model: Path, directory: Path) -> Iterator[tuple[int, list[int]]]:
    """Our model server with the same model, by itself on a TCP port: a Unix socket is beyond wrk."""
    port = free_port()
    model_dir = directory / "model"
    model_dir.mkdir()
    shutil.copy(model, model_dir / "xgboost-model")
    config = {
        "module": "clary.runtimes.frameworks.xgboost.model",
        "model_dir": str(model_dir),
        "listen": f"tcp:127.0.0.1:{port}",
        "vcpus": 2,
    }
    (directory / "instance.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "clary.runtimes.server", str(directory / "instance.json")]
    with running(command, port) as pids:
        yield port, pids()


@contextmanager
def running(
    command: list[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[], list[int]]]:
    """A server, from when its port is open; calling what is yielded tells its processes."""
    process = subprocess.Popen(command, env=None if environment is None else dict(environment))
    try:
        _wait_for(port, process)
        yield lambda: [
            process.pid,
            *(child.pid for child in psutil.Process(process.pid).children(recursive=True)),
        ]
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"a benchmark's server ended with {process.returncode}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _clary_pids(platform: Platform) -> list[int]:
    """The gateways and the instances with their minders: what a request passes through."""
    gateways = [platform.process(f"gateway-{n}") for n in range(platform.running.settings.gateways)]
    marker = str(platform.data_dir / "instances")
    instances = [p.pid for p in psutil.process_iter() if marker in session_directory(p)]
    return [identity.pid for identity in gateways if identity] + instances


def session_directory(process: psutil.Process) -> str:
    """Where its session's leader works: for an instance, whatever it sees itself, its directory."""
    try:
        return psutil.Process(os.getsid(process.pid)).cwd()
    except (OSError, ValueError, psutil.Error):
        return ""


def _pss_mib(pids: list[int]) -> float:
    return sum(pss_bytes(pid) for pid in pids) / 2**20


def pss_bytes(pid: int, field: str = "Pss") -> int:
    """A field of /proc/PID/smaps_rollup in bytes; 0 when the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
