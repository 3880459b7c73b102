"""How fast an endpoint stands, what one more instance costs, and how many fit: everything with a warm environment."""

import statistics
import time
from pathlib import Path

import psutil

from benchmarks.platform import Platform, regressor, start_to_ping_s
from benchmarks.report import Table, verdict
from benchmarks.serving import pss_bytes, session_directory

CREATIONS = 20
MANY = 200


def run() -> list[Table]:
    booster, rows = regressor()
    with Platform() as platform:
        uri = platform.upload(booster)
        idle = _idle_memory(platform)
        return [_creation(platform, uri, rows), *_many(platform, uri, rows), idle]


def _creation(platform: Platform, uri: str, rows: object) -> Table:
    """CreateEndpoint until the first 200, asked again every 10 ms by a client without retries."""
    runtime = platform.client("sagemaker-runtime")
    body = ",".join(f"{value:.7g}" for value in rows[0])  # type: ignore[index]
    took, started = [], []
    for number in range(CREATIONS):
        name = f"create-{number}"
        began = time.perf_counter()
        platform.deploy(name, uri, wait=False)
        while True:
            try:
                runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=body)
                break
            except runtime.exceptions.ClientError:
                time.sleep(0.01)
        took.append(time.perf_counter() - began)
        started.append(start_to_ping_s(platform.only_instance()))
        platform.wait_in_service(name)  # the first answer may come before the status says so
        platform.remove(name)
    p50, fork = statistics.median(took), statistics.median(started)
    return Table(
        "From CreateEndpoint to the first answer",
        ("what", "p50 ms", "worst ms", "bar"),
        [
            ("CreateModel, -EndpointConfig, -Endpoint → first 200", f"{p50 * 1e3:.0f}", f"{max(took) * 1e3:.0f}",
             f"p50 ≤ 1,000: {verdict(p50, 1.0, at_least=False)}"),
            ("fork → first good ping of one more instance", f"{fork * 1e3:.0f}", f"{max(started) * 1e3:.0f}",
             f"≤ 100: {verdict(fork, 0.1, at_least=False)}"),
        ],
        [f"{CREATIONS} endpoints one after the other, each deleted again; the environment and its zygote warm"],
    )  # fmt: skip


def _many(platform: Platform, uri: str, rows: object) -> list[Table]:
    """Two hundred endpoints at once, each answering; the private memory each one adds."""
    runtime = platform.client("sagemaker-runtime")
    body = ",".join(f"{value:.7g}" for value in rows[0])  # type: ignore[index]
    began = time.perf_counter()
    for number in range(MANY):
        platform.deploy(f"many-{number}", uri, wait=False)
    for number in range(MANY):
        platform.wait_in_service(f"many-{number}", every_s=0.2)
    took = time.perf_counter() - began
    answers = {
        runtime.invoke_endpoint(EndpointName=f"many-{n}", ContentType="text/csv", Body=body)["Body"].read()
        for n in range(MANY)
    }
    private = _private_memory(platform)
    median = statistics.median(private)
    return [
        Table(
            f"{MANY} endpoints at once",
            ("what", "figure", "bar"),
            [
                (f"{MANY} × create, until all are InService", f"{took:.1f} s", ""),
                ("endpoints that gave the right answer", f"{MANY if len(answers) == 1 else 0}", str(MANY)),
                ("private memory of one idle instance with its minder, median", f"{median / 2**20:.1f} MiB",
                 f"≤ 15 MB: {verdict(median, 15e6, at_least=False)}"),
                ("the same, largest", f"{max(private) / 2**20:.1f} MiB", ""),
            ],
            ["private = Private_Clean + Private_Dirty of /proc/PID/smaps_rollup, after one invocation each"],
        )
    ]  # fmt: skip


def _private_memory(platform: Platform) -> list[int]:
    """Bytes of each instance together with its minder (they share a session)."""
    marker = str(platform.data_dir / "instances")
    by_directory: dict[str, int] = {}
    for process in psutil.process_iter():
        directory = session_directory(process)
        if directory.startswith(marker):
            size = pss_bytes(process.pid, "Private_Clean") + pss_bytes(process.pid, "Private_Dirty")
            instance = Path(directory).relative_to(marker).parts[0]
            by_directory[instance] = by_directory.get(instance, 0) + size
    return list(by_directory.values())


def _idle_memory(platform: Platform) -> Table:
    table = Table("Memory of an idle server", ("process", "PSS MiB", "bar"))
    bars = {"control": 150.0, "gateway-0": 40.0, "gateway-1": 40.0}
    for name in ("control", "host", "gateway-0", "gateway-1"):
        identity = platform.process(name)
        assert identity is not None
        size = pss_bytes(identity.pid) / 2**20
        bar = (
            f"≤ {bars[name]:.0f} MB: {verdict(size * 2**20, bars[name] * 1e6, at_least=False)}"
            if name in bars
            else ""
        )
        table.rows.append((name, f"{size:.0f}", bar))
    return table
