"""Ten thousand signed requests accepted, ten thousand changed ones refused: the property tests with more examples."""

import os
import re
import subprocess
import sys
import tempfile

from benchmarks.chaos.experiment import Broken, Conditions, hold
from benchmarks.report import ROOT

EXAMPLES = 10_000
EXAMPLES_SABOTAGED = 100
TEST = "tests/wire/test_signatures.py"
ACCEPTED, REFUSED = (
    "test_Z04_what_botocore_signs_is_accepted",
    "test_Z04_any_single_change_to_a_signed_request_is_refused",
)


def signatures(conditions: Conditions) -> str:
    wanted = EXAMPLES_SABOTAGED if conditions.sabotage else EXAMPLES
    output = _run(conditions, wanted)
    if "DID NOT RAISE" in output:
        raise Broken("a changed request was accepted")
    accepted, refused = (_passed(output, name) for name in (ACCEPTED, REFUSED))
    hold(
        accepted >= wanted and refused >= wanted, f"{accepted:,} accepted and {refused:,} refused:\n{output}"
    )
    return f"{accepted:,} signed requests accepted, {refused:,} changed ones refused"


def _run(conditions: Conditions, examples: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0"),
                *(f"--hypothesis-seed={conditions.seed}", "--hypothesis-show-statistics"),
                *(f"{TEST}::{name}" for name in (ACCEPTED, REFUSED)),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                **conditions.environment,
                "CLARY_SIGNATURES": str(examples),
                "HYPOTHESIS_STORAGE_DIRECTORY": directory,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stdout + done.stderr


def _passed(output: str, test: str) -> int:
    """How many examples passed, by Hypothesis's own count; 0 when the test did not end well."""
    _, _, statistics = output.partition("Hypothesis Statistics")
    _, _, mine = statistics.partition(f"::{test}:")
    if "failed" in output.splitlines()[-1]:
        return 0
    counts = re.search(r"generate phase.*?(\d+) passing", mine, re.DOTALL)
    return int(counts[1]) if counts else 0
