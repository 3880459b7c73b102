"""What a framework's runtime answers, asked in the environment that Clary builds for it."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framework_environments import python_of

TESTS = Path(__file__).parent


def ask_in_framework(
    framework: str, model_dir: Path, requests: Sequence[Sequence[str | None]]
) -> tuple[dict[str, Any], str]:
    """`requests` are body, content type and accept. What `in_framework` tells of them, and what the runtime logs."""
    module = f"clary.runtimes.frameworks.{framework}.model"
    done = subprocess.run(
        [python_of(framework), TESTS / "in_framework.py", module, model_dir, json.dumps(requests)],
        env={"PYTHONPATH": str(TESTS.parent / "src"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr
