"""`in_process.py MODEL_DIR BODIES SECONDS`: the script's own rate, its functions in a loop and nothing around them.

BODIES has a body a line. Prints the calls, the seconds that passed and those of them in which no
processor was free, as JSON. Run by the Python of the environment that the instance runs in.
"""

import importlib
import json
import sys
import time
from pathlib import Path


def main(model_dir: str, bodies: str, seconds: float) -> None:
    sys.path.insert(0, str(Path(model_dir, "code")))
    inference = importlib.import_module("inference")
    rows = Path(bodies).read_text().splitlines()
    model = inference.model_fn(model_dir)
    calls, size = 0, len(rows)
    waited = waited_s()
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        given = inference.input_fn(rows[calls % size], "text/csv")
        inference.output_fn(inference.predict_fn(given, model), "application/json")[0].encode()
        calls += 1
    print(json.dumps({"calls": calls, "seconds": took, "waited": waited_s() - waited}))


def waited_s() -> float:
    """Seconds in which this process could have run, but had no processor."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
