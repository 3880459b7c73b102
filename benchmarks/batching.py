"""PyTorch under many connections: Clary, whole, beside a bare server that predicts together what waits.

The model is the runtimes' MLP, one row of JSON a request, all rows different. The floor is one process with the model
in it; before Clary's instance stand a gateway that verifies every signature, a hop and a sandbox.
"""

import json
import random
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import invocations, load
from benchmarks.platform import Platform, archive
from benchmarks.report import Table, verdict
from benchmarks.runtimes import CASES, Case, make
from benchmarks.serving import CONNECTIONS, ROUNDS, SECONDS, cell, free_port, rate, running

ENDPOINT = "bench-pytorch"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"
JSON = "application/json"
FEATURES = 30
REQUESTS = 10_000
CHECKED = 50
FLOOR = Path(__file__).with_name("batching_floor.py")
BARE = "bare uvloop, the model in process, what waits predicted together (the floor)"
CLARY = "Clary through the gateway, SigV4"
BAR = 0.4
TRITON_S_PYTHON_BACKEND = 13_860 / 40_759


def run() -> list[Table]:
    bodies = list(_bodies())
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Platform() as platform:
        case = make(CASES / "pytorch.py", Path(directory))
        files = {path.name: path.read_bytes() for path in case.model.iterdir()}
        platform.deploy(ENDPOINT, platform.upload_archive(archive(files), "pytorch.tar.gz"), image=IMAGE)
        plain, signed = Path(directory) / "plain", Path(directory) / "signed"
        load.write_requests(plain, (invocations.plain(body, JSON) for body in bodies))
        with _floor(case) as port:
            _check_answers(platform, port, bodies[:CHECKED])
            found: dict[tuple[str, int], list[load.Load]] = {}
            for connections in CONNECTIONS:
                load.write_requests(signed, invocations.signed(platform, ENDPOINT, bodies, JSON))
                for _ in range(ROUNDS):
                    for name, where, requests in ((BARE, port, plain), (CLARY, platform.port, signed)):
                        seen = load.run(where, requests, connections, SECONDS)
                        found.setdefault((name, connections), []).append(seen)
    return [_table(found)]


def _table(found: dict[tuple[str, int], list[load.Load]]) -> Table:
    columns = ("system", *(f"{c} conn: req/s · p50 · p99 ms" for c in CONNECTIONS), "errors")
    table = Table(f"PyTorch, single rows of JSON ({FEATURES} → 64 → 64 → 1)", columns)
    for name in (BARE, CLARY):
        errors = sum(each.errors for c in CONNECTIONS for each in found[name, c])
        table.rows.append((name, *(cell(found[name, c]) for c in CONNECTIONS), str(errors)))
    ratio = rate(found[CLARY, 128]) / rate(found[BARE, 128])
    table.notes += [
        f"Clary / floor at 128: {ratio:.2f} (bar {BAR}: {verdict(ratio, BAR, at_least=True)}; Triton's Python backend "
        f"with a model like this: {TRITON_S_PYTHON_BACKEND:.2f} of such a floor, on another machine)",
        f"wrk, {SECONDS:g} s a run, median of {ROUNDS} rounds, in turn; {REQUESTS:,} distinct requests replayed; both "
        "answer the same numbers",
    ]
    return table


def _bodies() -> Iterator[bytes]:
    numbers = random.Random(1)
    for _ in range(REQUESTS):
        yield json.dumps([[round(numbers.random(), 4) for _ in range(FEATURES)]]).encode()


@contextmanager
def _floor(case: Case) -> Iterator[int]:
    port = free_port()
    packages = sysconfig.get_path("platlib")
    command = [str(case.python), "-P", str(FLOOR), str(case.model / "model.pt"), str(port), packages]
    with running(command, port, case.environment):
        yield port


def _check_answers(platform: Platform, port: int, bodies: list[bytes]) -> None:
    """What is measured must be right: the two know nothing of each other."""
    runtime = platform.client("sagemaker-runtime")
    for body in bodies:
        found = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType=JSON, Accept=JSON, Body=body)
        ours = json.loads(found["Body"].read())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/invocations", data=body) as answer:
            theirs = json.loads(answer.read())
        assert abs(ours[0][0] - theirs[0][0]) < 1e-5, (ours, theirs)
