"""What the sandbox costs: rung 1 beside rung 0, two servers on the same machine that take turns.

A start is what the host sees, from its launch to the first good ping. A request goes straight to the instance's
socket, so that nothing of a gateway hides a difference.
"""

import os
import statistics
from dataclasses import dataclass, field

from benchmarks import direct, invocations
from benchmarks.platform import Platform, regressor, start_to_ping_s
from benchmarks.report import Table, verdict
from clary.host import rungs
from clary.settings import Settings

STARTS = 20
SLICES = int(os.environ.get("BENCH_ROUNDS", "3")) * 10
SLICE_S = 0.5
START_BAR_MS = 30.0
SAME = 0.05  # medians that differ by less than this count as no difference


@dataclass(slots=True)
class Readings:
    """Of one rung, in the order in which they were taken."""

    starts_ms: list[float] = field(default_factory=list)
    slices: list[direct.Answers] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Of a request, in µs; the median of the slices."""
        return statistics.median(each.percentile(percent) for each in self.slices)


def run() -> list[Table]:
    if refusal := rungs.choose("1", _uid_base()).refusal:
        return [Table("Sandbox rung 1 beside rung 0", ("not measured",), [(refusal,)])]
    booster, rows = regressor()
    requests = [invocations.plain(",".join(f"{cell:.7g}" for cell in row).encode()) for row in rows]
    with _server("0") as plain, _server("1") as boxed:
        servers = (plain, boxed)
        found = (Readings(), Readings())
        uris = [server.upload(booster) for server in servers]
        for number in range(STARTS):
            for server, uri, readings in zip(servers, uris, found, strict=True):
                readings.starts_ms.append(_start_ms(server, uri, number))
        for server, uri in zip(servers, uris, strict=True):
            server.deploy("asked", uri)
        _ask_in_turn([server.only_instance().address for server in servers], requests, found)
    return [_starts(*found), _requests(*found)]


def _server(rung: str) -> Platform:
    return Platform(environment={"CLARY_SANDBOX": rung})


def _uid_base() -> int:
    default = Settings.__dataclass_fields__["sandbox_uid_base"].default
    assert isinstance(default, int)
    return default


def _start_ms(server: Platform, uri: str, number: int) -> float:
    name = f"start-{number}"
    server.deploy(name, uri)
    took = start_to_ping_s(server.only_instance()) * 1e3
    server.remove(name)
    return took


def _ask_in_turn(addresses: list[str], requests: list[bytes], found: tuple[Readings, Readings]) -> None:
    """One slice each, in an order that changes from round to round."""
    both = list(zip(addresses, found, strict=True))
    for address, _ in both:
        direct.run(address, requests, 1, SLICE_S)  # the first requests of an instance are slower
    for number in range(SLICES):
        for address, readings in both if number % 2 else reversed(both):
            readings.slices.append(direct.run(address, requests, 1, SLICE_S))


def _starts(plain: Readings, boxed: Readings) -> Table:
    medians = [statistics.median(each.starts_ms) for each in (plain, boxed)]
    more = medians[1] - medians[0]
    bar = f"≤ {START_BAR_MS:g} more: {verdict(more, START_BAR_MS, at_least=False)}"
    return Table(
        "Starting an instance on sandbox rung 1 beside rung 0",
        ("rung", "fork → first good ping, p50 ms", "least – most ms", "rung 1 − rung 0, ms", "bar"),
        [
            (f"{rung}", f"{median:.0f}", f"{min(each.starts_ms):.0f} – {max(each.starts_ms):.0f}", *of_both)
            for rung, median, each, of_both in (
                (0, medians[0], plain, ("", "")),
                (1, medians[1], boxed, (f"{more:.0f}", bar)),
            )
        ],
        [f"single XGBoost models, {STARTS} starts each in turn; environment and zygote warm"],
    )


def _requests(plain: Readings, boxed: Readings) -> Table:
    ratios = [
        there.percentile(50) / here.percentile(50)
        for here, there in zip(plain.slices, boxed.slices, strict=True)
    ]
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    bar = f"no difference (within {SAME:.0%}): {verdict(abs(ratio - 1), SAME, at_least=False)}"
    errors = [sum(slice_.errors for slice_ in each.slices) for each in (plain, boxed)]
    table = Table(
        "A request on sandbox rung 1 beside rung 0",
        ("rung", "p50 µs", "p90 µs", "p99 µs", "errors", "p50, rung 1 / rung 0", "bar"),
        notes=[
            f"single-row XGBoost straight to the instance's socket, 1 connection; {SLICES} slices of {SLICE_S:g} s "
            "each in turn, medians of the slices; the ratio: median of the pairs, half of which lie in the brackets",
        ],
    )
    of_both = [("", ""), (f"{ratio:.3f} ({low:.3f}–{high:.3f})", bar)]
    for rung, readings, failed, words in zip((0, 1), (plain, boxed), errors, of_both, strict=True):
        percentiles = (f"{readings.percentile(percent):.0f}" for percent in (50, 90, 99))
        table.rows.append((str(rung), *percentiles, str(failed), *words))
    return table
