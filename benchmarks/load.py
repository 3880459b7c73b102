"""The load generator: wrk replaying requests that were signed beforehand."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("replay.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw. Latencies in µs."""

    rate: float
    p50_us: float
    p99_us: float
    errors: int


def need_wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        sys.exit("the benchmarks need wrk: apt-get install wrk")
    return found


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n" % len(request))
            file.write(request)
            file.write(b"\n")


def run(port: int, requests: Path, connections: int, seconds: float) -> Load:
    """Closed loop: every connection sends the next request when it has the answer."""
    threads = min(connections, os.cpu_count() or 1, 2)
    command = [need_wrk(), f"-t{threads}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("JSON "))
    found = json.loads(line.removeprefix("JSON "))
    return Load(
        rate=found["requests"] / (found["duration_us"] / 1e6),
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        errors=found["bad_status"] + found["socket_errors"],
    )
