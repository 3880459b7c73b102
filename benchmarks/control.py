"""The control plane under many resources: Describe does not grow with the store, and no page of a List is slow."""

import statistics
import time
from typing import Any

from benchmarks import filled_store
from benchmarks.platform import Platform, regressor
from benchmarks.report import Table, verdict

STORED = 10_000
DESCRIBES = 500


def run() -> list[Table]:
    booster, _ = regressor(trees=2, depth=2)
    with Platform() as platform:
        platform.deploy("real", platform.upload(booster))
        filled_store.fill(platform, "real", STORED)
        return [_describe(platform), _list(platform)]


def _describe(platform: Platform) -> Table:
    sagemaker = platform.client("sagemaker")
    took = []
    for number in range(DESCRIBES):
        name = f"stored-{number * (STORED // DESCRIBES):05d}"
        began = time.perf_counter()
        sagemaker.describe_endpoint(EndpointName=name)
        took.append((time.perf_counter() - began) * 1e3)
    p99 = statistics.quantiles(took, n=100)[98]
    return Table(
        f"DescribeEndpoint with {STORED:,} endpoints in the store",
        ("p50 ms", "p99 ms", "bar"),
        [(f"{statistics.median(took):.2f}", f"{p99:.2f}", f"p99 ≤ 10: {verdict(p99, 10, at_least=False)}")],
        ["as boto3 sees it, its own work included, one caller"],
    )


def _list(platform: Platform) -> Table:
    sagemaker = platform.client("sagemaker")
    pages: list[float] = []
    arguments: dict[str, Any] = {"MaxResults": 100}
    while True:
        began = time.perf_counter()
        found = sagemaker.list_endpoints(**arguments)
        pages.append((time.perf_counter() - began) * 1e3)
        if "NextToken" not in found:
            break
        arguments["NextToken"] = found["NextToken"]
    first, last = statistics.median(pages[:20]), statistics.median(pages[-20:])
    return Table(
        "ListEndpoints, page after page",
        ("pages of 100", "first 20, median ms", "last 20, median ms", "last / first"),
        [(str(len(pages)), f"{first:.2f}", f"{last:.2f}", f"{last / first:.2f}")],
    )
