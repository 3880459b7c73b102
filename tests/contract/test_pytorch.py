"""PyTorch's runtime, in the environment that Clary builds: what is joined answers as single calls do."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import clary
from framework_environments import python_of

CHECKS = Path(__file__).parent.parent / "pytorch_checks.py"
NAMES = [
    line.removeprefix("def check_").partition("(")[0]
    for line in CHECKS.read_text().splitlines()
    if line.startswith("def check_")
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    sources = Path(clary.__file__).parent.parent
    done = subprocess.run(
        [python_of("pytorch"), CHECKS, tmp_path_factory.mktemp("checks")],
        env={"PATH": os.defpath, "PYTHONPATH": f"{sources}:{CHECKS.parent}", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_H06_pytorch(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "ok", outcomes[name]
