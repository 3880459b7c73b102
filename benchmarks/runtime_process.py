"""What `benchmarks.runtimes` runs by a framework's own Python: it needs nothing but the standard library and a case.

runtime_process.py make CASE FOLDER        the case's model, written to the folder
runtime_process.py bodies CASE FOLDER      requests of 1 row and of 64, beside it
runtime_process.py loop CASE FOLDER        in-process calls: a line `ROWS SECONDS` in, what they took out
runtime_process.py zygote PRELOAD…         imports them, then forks a model server for each configuration it is told
"""

import gc
import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SIZES = (1, 64)
BODIES = 200
CHECKED = 20


def main(what: str, *arguments: str) -> None:
    if what == "zygote":
        zygote(arguments)
        return
    case, folder = load(Path(arguments[0])), Path(arguments[1])
    {"make": make, "bodies": write_bodies, "loop": loop}[what](case, folder)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("case", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(case: Any, folder: Path) -> None:
    case.make(folder)


def write_bodies(case: Any, folder: Path) -> None:
    told: dict[str, Any] = {"content_type": case.CONTENT_TYPE}
    for rows in SIZES:
        told[str(rows)] = [case.body(rows, number).decode("latin-1") for number in range(BODIES)]
    (folder.parent / "requests.json").write_text(json.dumps(told))


def loop(case: Any, folder: Path) -> None:
    predict = case.predictor(folder)
    bodies = {rows: [case.body(rows, number) for number in range(BODIES)] for rows in SIZES}
    answers = {rows: [predict(body).decode() for body in bodies[rows][:CHECKED]] for rows in SIZES}
    print(json.dumps(answers), flush=True)
    for line in sys.stdin:
        rows, seconds = line.split()
        print(json.dumps(timed(predict, bodies[int(rows)], float(seconds))), flush=True)


def timed(predict: Any, bodies: list[bytes], seconds: float) -> list[float]:
    """Microseconds of each call, as many as the seconds hold."""
    took: list[float] = []
    clock = time.perf_counter
    end = clock() + seconds
    while (began := clock()) < end:
        predict(bodies[len(took) % len(bodies)])
        took.append((clock() - began) * 1e6)
    return took


def zygote(preload: tuple[str, ...]) -> None:
    for name in preload:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # as the host's zygotes do
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        child = os.fork()
        if child == 0:
            serve(line.strip())
        print(json.dumps([child, began]), flush=True)


def serve(path: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os._exit(importlib.import_module("clary.runtimes.server").main(json.loads(Path(path).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
