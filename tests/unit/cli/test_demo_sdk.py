"""The demo's second half: its lines run one by one, as the pages show them, and what goes wrong is told."""

import argparse
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clary.cli import CommandError, demo_sdk
from clary.cli.progress import Phases
from clary.cli.server import Running
from clary.host.environments import EnvironmentFailed, Environments

ROOT = Path(__file__).resolve().parents[3]

# A package that looks like the SDK as far as the six lines go, and adds each row's numbers up.
SDK = """
import os
class Session:
    boto_region_name = "us-east-1"
    def upload_data(self, path, key_prefix): return f"s3://default/{key_prefix}/{os.path.getsize(path)}"
def get_execution_role(): return "role"
class image_uris:
    retrieve = staticmethod(lambda name, region, version: f"{region}/{name}:{version}")
class serializers:
    CSVSerializer = object
class Predictor:
    def predict(self, rows): return "\\n".join(str(float(sum(row))) for row in rows).encode()
class Model:
    def __init__(self, image, data, role, predictor_cls):
        assert (image, data, role) == ("us-east-1/xgboost:1.7-1", "s3://default/clary-demo/3", "role")
        self._made = predictor_cls
    def deploy(self, count, instance_type, serializer):
        print("noise of the SDK")
        DEPLOYED
        return self._made()
"""


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: str) -> list[float]:
    (tmp_path / "sagemaker.py").write_text(SDK.replace("DEPLOYED", deployed))
    environ = {"PYTHONPATH": str(tmp_path), "PATH": os.defpath}
    monkeypatch.setattr(demo_sdk, "environment", lambda running: environ)
    running = cast("Running", SimpleNamespace())
    return demo_sdk.tell(Path(sys.executable), running, b"tar", [[1.0, 2.0], [3.5, 4.0]], Phases())


def test_H03_the_lines_are_shown_as_they_run_and_give_the_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, "pass") == [3.0, 7.5]
    told = capsys.readouterr().out
    places = [told.index(f">>> {line}\n") for line in demo_sdk.LINES]
    assert places == sorted(places)
    assert "noise of the SDK" not in told


def test_a_line_that_fails_is_told_with_what_the_sdk_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError) as failed:
        run(tmp_path, monkeypatch, "raise RuntimeError('no such role')")
    assert "noise of the SDK" in str(failed.value)
    assert "RuntimeError: no such role" in str(failed.value)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/tutorial/first-endpoint.md", "docs/howto/use-the-sagemaker-sdks.md"]
)
def test_the_lines_are_those_that_the_pages_show(page: str) -> None:
    text = (ROOT / page).read_text()
    own = ("upload_data", "predict(rows)")  # each page has names and rows of its own
    assert [
        line for line in demo_sdk.LINES if line not in text and not any(each in line for each in own)
    ] == []


def test_U05_without_a_package_index_the_demo_goes_on_without_its_second_half(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise EnvironmentFailed("the package index cannot be reached")

    monkeypatch.setattr(Environments, "obtain", fail)
    monkeypatch.setattr(Environments, "ready", lambda *_: None)
    monkeypatch.setattr(demo_sdk, "_installed", lambda: None)
    sdk = demo_sdk.Sdk(argparse.Namespace(data_dir=str(root)))
    assert sdk.await_python(Phases()) is None
    told = capsys.readouterr().out
    assert "--no-sdk" in told
    assert "is left out: the package index cannot be reached" in told
