"""Models that hold memory or processes outside of Python, in a server of many: what is unloaded is gone."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import clary
from clary.catalog import FRAMEWORKS
from framework_environments import python_of

RUNNER = Path(__file__).parent.parent / "many_in_framework.py"
HANDLERS = """
def input_handler(data, context):
    return data.read()

def output_handler(response, context):
    return response.content, "application/json"
"""


def happened(framework: str, **story: Any) -> dict[str, Any]:
    sample = json.loads((FRAMEWORKS / framework / "sample" / "request.json").read_text())
    told = {
        "model": str(FRAMEWORKS / framework / "sample" / "model"),
        "body": sample["body"],
        "kind": sample["content_type"],
        "answer": sample["answer"],
        **story,
    }
    done = subprocess.run(
        [python_of(framework), RUNNER, f"clary.runtimes.frameworks.{framework}.model", json.dumps(told)],
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(clary.__path__[0]).parent), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def grown(found: dict[str, Any]) -> int:
    """What a round left behind, on average; the first ones set up what stays."""
    allocated = found["allocated"]
    return int((allocated[-1] - allocated[9]) / (len(allocated) - 10))


def test_M02_boosters_that_are_unloaded_leave_nothing_behind() -> None:
    assert grown(happened("lightgbm", rounds=70)) < 1000


def test_M02_saved_models_that_are_unloaded_leave_nothing_behind() -> None:
    assert grown(happened("tensorflow", rounds=40)) < 20_000


def test_M02_a_script_s_saved_model_outlives_its_process_and_goes_with_it(tmp_path: Path) -> None:
    for name, script in (("good", HANDLERS), ("bad", "import there_is_none\n")):
        shutil.copytree(FRAMEWORKS / "tensorflow" / "sample" / "model", tmp_path / name)
        (tmp_path / name / "code").mkdir()
        (tmp_path / name / "code" / "inference.py").write_text(script)
    found = happened(
        "tensorflow", rounds=2, kills=True, model=str(tmp_path / "good"), bad=str(tmp_path / "bad")
    )
    assert found["children"] == []
    status, words = found["bad"]
    assert (status, "No module named 'there_is_none'" in words) == (500, True)
