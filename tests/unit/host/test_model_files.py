"""Which models need their framework's older environment: told by bytes, and nothing else is looked at."""

import os
from pathlib import Path

import pytest

from clary.catalog import Catalog, Older
from clary.host.model_files import BEGINNING_BYTES, MODEL, names, needs_older

KEPT = Path(__file__).parents[2] / "golden" / "xgboost"
BEFORE_UBJ = ("0.90", "1.0", "1.2", "1.3", "1.5")


def older() -> Older:
    manifest = Catalog.load().named("xgboost")
    assert manifest is not None
    assert manifest.older is not None
    return manifest.older


def needs(tmp_path: Path, **files: bytes) -> bool:
    model = tmp_path / MODEL
    model.mkdir(parents=True)
    for name, content in files.items():
        (model / name).write_bytes(content)
    return needs_older(older(), tmp_path)


@pytest.mark.parametrize("name", ["booster.pkl", "classifier.pkl", "booster.bin"])
@pytest.mark.parametrize("version", BEFORE_UBJ)
def test_H06_what_older_versions_wrote_is_recognised(tmp_path: Path, version: str, name: str) -> None:
    assert needs(tmp_path, model=(KEPT / version / name).read_bytes())


def test_H06_the_binary_format_of_later_versions_is_recognised(tmp_path: Path) -> None:
    assert needs(tmp_path, model=(KEPT / "1.7" / "booster.bin").read_bytes())


def test_one_old_model_of_an_ensemble_is_enough(tmp_path: Path) -> None:
    assert needs(tmp_path, a=b'{"learner":{}}', b=(KEPT / "1.3" / "booster.pkl").read_bytes())


@pytest.mark.parametrize("name", ["booster.pkl", "classifier.pkl"])
def test_pickles_that_are_read_today_are_left_alone(tmp_path: Path, name: str) -> None:
    assert not needs(tmp_path, model=(KEPT / "1.7" / name).read_bytes())


@pytest.mark.parametrize(
    "content", [b"", b'{"learner":{}}', b"{L\0\0\0\0\0\0\0\7learner", b"\0" * BEGINNING_BYTES, b"a binf b"]
)
def test_other_contents_are_left_alone(tmp_path: Path, content: bytes) -> None:
    assert not needs(tmp_path, model=content)


def test_only_plain_files_of_the_root_are_looked_at(tmp_path: Path) -> None:
    model = tmp_path / MODEL
    (model / "folder").mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(b"binf")
    (model / "link").symlink_to(tmp_path / "elsewhere")
    (model / ".hidden").write_bytes(b"binf")
    (model / "folder" / "file").write_bytes(b"binf")
    os.mkfifo(model / "pipe")
    assert not needs_older(older(), tmp_path)


def test_a_model_that_is_not_there_needs_nothing(tmp_path: Path) -> None:
    assert not needs_older(older(), tmp_path)


def test_the_names_of_plain_files_in_the_root_are_known(tmp_path: Path) -> None:
    assert names(tmp_path) == []
    model = tmp_path / MODEL
    (model / "folder").mkdir(parents=True)
    for name in ("b.onnx", "a", ".hidden"):
        (model / name).write_bytes(b"")
    (model / "link.onnx").symlink_to(model / "a")
    assert names(tmp_path) == ["a", "b.onnx"]
