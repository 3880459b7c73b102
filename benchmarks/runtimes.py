"""Every runtime against its framework: the model server, and in-process calls with decoding and encoding around them.

A case is a file in `benchmarks/frameworks/`, called like the framework or `FRAMEWORK-SOMETHING.py`. It runs in the
framework's environment and has

    a docstring          whose first line says what is asked of what
    CONTENT_TYPE         of its requests
    make(folder)         writes the model, as an archive holds it
    body(rows, number)   the request of that number, with so many rows
    predictor(folder)    a function from body to answer, as one would write it without a server

Server and loop take turns of a second. The server has one connection and a Unix socket, no gateway and no sandbox, so
that the difference is what decoding, encoding and HTTP add.
"""

import ast
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import direct
from benchmarks.report import ROOT, Table, verdict
from benchmarks.runtime_process import SIZES
from benchmarks.serving import pss_bytes
from clary import settings
from clary.catalog import Catalog, Manifest
from clary.host.environments import Environments

SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
STARTS = 5
CONNECTIONS = 32
BAR, LARGE_US = 0.6, 2000.0
CASES = Path(__file__).with_name("frameworks")
PROCESS = Path(__file__).with_name("runtime_process.py")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(slots=True)
class Readings:
    """Of requests of one size: the medians of each round."""

    alone_us: list[float] = field(default_factory=list)
    served_us: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def ratio(self) -> float:
        return statistics.median(a / s for a, s in zip(self.alone_us, self.served_us, strict=True))

    @property
    def added_us(self) -> float:
        return statistics.median(s - a for a, s in zip(self.alone_us, self.served_us, strict=True))


@dataclass(frozen=True, slots=True)
class Case:
    """One model of one framework, made, with a Python to run it."""

    name: str
    what: str
    path: Path
    manifest: Manifest
    python: Path
    folder: Path

    def command(self, what: str, *arguments: str) -> list[str]:
        return [str(self.python), "-P", str(PROCESS), what, *arguments]  # `platform` here is not Python's

    @property
    def environment(self) -> Mapping[str, str]:
        return {**ONE_THREAD, "PATH": os.defpath, "PYTHONPATH": str(ROOT / "src")}

    @property
    def model(self) -> Path:
        return self.folder / "model"


def run() -> list[Table]:
    speed = Table(
        "Each runtime beside in-process calls of its framework",
        ("runtime", "request", "in process, µs", "served, µs", "ratio", "added µs", "bar",
         f"answers/s, {CONNECTIONS} connections"),
        notes=[
            "in process: decode the body, predict, encode, in a loop in the framework's own environment; served: one "
            "connection to the model server in the same environment, no gateway; medians of every call",
            f"{SECONDS:g} s in turn, {ROUNDS} rounds; the bar holds where the call itself takes {LARGE_US / 1e3:g} ms "
            "or more",
        ],
    )  # fmt: skip
    starts = Table(
        "Each runtime's start",
        ("runtime", "started by", "until the first good ping, ms", "private memory of one more, MiB", "bar"),
        notes=[
            f"median of {STARTS} starts, without the platform and its sandbox; fork: of a process that has imported "
            "the framework; private = Private_Clean + Private_Dirty after one request, while another instance runs",
        ],
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for case in _cases(Path(directory)):
            print(f"  {case.name}: {case.what}", flush=True)
            _add_speed(speed, case)
            _add_start(starts, case)
    return [speed, starts]


def _cases(directory: Path) -> Iterator[Case]:
    wanted = os.environ.get("BENCH_CASES", "").split()
    for path in sorted(CASES.glob("*.py")):
        if not wanted or path.stem in wanted:
            yield make(path, directory)


def make(path: Path, directory: Path) -> Case:
    """The case of that file, its environment and its model made."""
    known = settings.load({})
    manifest = Catalog.load().named(path.stem.partition("-")[0])
    assert manifest is not None, f"{path.name} is called like no framework"
    environments = Environments(known.cache_dir / "environments", known.index_urls, os.environ)
    python = environments.obtain(manifest, lambda text: None).python
    what = str(ast.get_docstring(ast.parse(path.read_text()))).splitlines()[0].rstrip(".")
    case = Case(path.stem, what, path, manifest, python, directory / path.stem)
    case.model.mkdir(parents=True)
    for step in ("make", "bodies"):
        command = case.command(step, str(path), str(case.model))
        subprocess.run(command, env=dict(case.environment), check=True, stdout=subprocess.DEVNULL)
    return case


def _add_speed(table: Table, case: Case) -> None:
    readings = {rows: Readings() for rows in SIZES}
    with _served(case) as (address, _), _loop(case) as (loop, expected):
        requests = {rows: _requests(case, rows) for rows in SIZES}
        _check_answers(address, requests, expected)
        for _ in range(ROUNDS):
            for rows in SIZES:
                readings[rows].alone_us.append(statistics.median(_timed(loop, rows)))
                answers = direct.run(address, requests[rows], 1, SECONDS)
                readings[rows].served_us.append(answers.percentile(50))
                readings[rows].errors += answers.errors
        busy = direct.run(address, requests[1], CONNECTIONS, SECONDS).rate
    for rows, found in readings.items():
        alone, served = statistics.median(found.alone_us), statistics.median(found.served_us)
        bar = f"≥ {BAR}: {verdict(found.ratio, BAR, at_least=True)}" if alone >= LARGE_US else ""
        name = f"{case.name}: {case.what}" if rows == SIZES[0] else ""
        errors = f" ({found.errors} errors)" if found.errors else ""
        table.rows.append(
            (name, f"{rows} row{'s' * (rows > 1)}{errors}", f"{alone:,.0f}", f"{served:,.0f}",
             f"{found.ratio:.2f}", f"{found.added_us:,.0f}", bar, f"{busy:,.0f}" if rows == 1 else "")
        )  # fmt: skip


def _add_start(table: Table, case: Case) -> None:
    took, private = [], 0.0
    with _served(case), ExitStack() as stack:
        starter = stack.enter_context(_zygote(case)) if case.manifest.fork_safe else None
        for number in range(STARTS):
            with _served(case, starter, f"start-{number}") as (address, (pid, began)):
                took.append(time.clock_gettime(time.CLOCK_MONOTONIC) - began)
                direct.run(address, _requests(case, 1)[:1], 1, 0.05)
                private = (pss_bytes(pid, "Private_Clean") + pss_bytes(pid, "Private_Dirty")) / 2**20
    forks = case.manifest.fork_safe
    bar = f"≤ 15 MB: {verdict(private * 2**20, 15e6, at_least=False)}" if forks else ""
    way = "fork" if forks else "a new process"
    table.rows.append((case.name, way, f"{statistics.median(took) * 1e3:,.0f}", f"{private:,.1f}", bar))


Process = subprocess.Popen[str]


@contextmanager
def _served(
    case: Case, zygote: Process | None = None, name: str = "server"
) -> Iterator[tuple[str, tuple[int, float]]]:
    """A model server's address once its ping is good; its process, and when it began."""
    address = case.folder / f"{name}.sock"
    config = {"module": case.manifest.module, "model_dir": str(case.model), "listen": f"unix:{address}", "vcpus": 2,
              "environment": {}}  # fmt: skip
    path = case.folder / f"{name}.json"
    path.write_text(json.dumps(config))
    with ExitStack() as stack:
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        starter = zygote or stack.enter_context(_zygote(case))
        assert starter.stdin is not None
        assert starter.stdout is not None
        print(path, file=starter.stdin, flush=True)
        pid, forked = json.loads(starter.stdout.readline())
        try:
            _await_ping(address, pid)
            yield str(address), (pid, forked if zygote else began)
        finally:
            os.kill(pid, 15)


@contextmanager
def _zygote(case: Case) -> Iterator[Process]:
    preload = case.manifest.preload or ("clary.runtimes.server",)
    with _process(case, "zygote", *preload) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@contextmanager
def _loop(case: Case) -> Iterator[tuple[Process, dict[str, list[str]]]]:
    """In-process calls on request, and what they answer."""
    with _process(case, "loop", str(case.path), str(case.model)) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())


@contextmanager
def _process(case: Case, what: str, *arguments: str) -> Iterator[Process]:
    process = subprocess.Popen(
        case.command(what, *arguments),
        env=dict(case.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield process
        process.terminate()


def _timed(loop: Process, rows: int) -> list[float]:
    assert loop.stdin is not None
    assert loop.stdout is not None
    print(rows, SECONDS, file=loop.stdin, flush=True)
    took: list[float] = json.loads(loop.stdout.readline())
    return took


def _requests(case: Case, rows: int) -> list[bytes]:
    head = "POST /invocations HTTP/1.1\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    told = json.loads((case.folder / "requests.json").read_text())
    bodies = [body.encode("latin-1") for body in told[str(rows)]]
    return [head.format(told["content_type"], len(body)).encode() + body for body in bodies]


def _check_answers(
    address: str, requests: Mapping[int, list[bytes]], expected: Mapping[str, list[str]]
) -> None:
    """What is measured must be right: the numbers of the first answers against those of the loop."""
    for rows, answers in expected.items():
        for request, answer in zip(requests[int(rows)], answers, strict=False):
            found, wanted = _numbers(_ask(address, request)), _numbers(answer)
            assert len(found) == len(wanted) > 0, (found, wanted)
            assert all(abs(f - w) <= 1e-4 * max(1, abs(w)) for f, w in zip(found, wanted, strict=True)), (
                found,
                wanted,
            )


def _ask(address: str, request: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read().decode()
        assert response.status == 200, body
        return body


def _numbers(text: str) -> list[float]:
    return [float(word) for word in NUMBER.findall(text)]


def _await_ping(address: Path, pid: int) -> None:
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(address))
                connection.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
                if connection.recv(1024).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            os.kill(pid, 0)  # raises when it has gone
            time.sleep(0.001)
