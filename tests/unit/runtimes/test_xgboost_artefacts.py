"""Which files make a model, and the words for those that do not."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xgboost

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.xgboost.artefacts import read_models


def refusal(model_dir: Path, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(LoadError) as caught:
        read_models(model_dir, environment or {})
    return str(caught.value)


def test_any_one_file_of_the_root_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "whatever").write_bytes(b'{"a": 1}')
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "code").mkdir()
    assert read_models(tmp_path, {}) == [("whatever", b'{"a": 1}')]


def test_several_files_are_an_ensemble_unless_told_otherwise(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_bytes(b"{L" + name.encode())
    assert [name for name, _ in read_models(tmp_path, {})] == ["a", "b", "c"]
    alone = read_models(tmp_path, {"SAGEMAKER_INFERENCE_ENSEMBLE": "false"})
    assert [name for name, _ in alone] == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"binf\0\0\0", "old binary format"),
        (b"bs64abcd", "old binary format"),
        (pickle.dumps({"a": 1}), "is a pickle from which XGBoost"),
        (b"ccopy_reg\n_reconstructor\n(cxgboost.core\nBooster\n", "booster.save_model"),
        (b"\0\0\0\x3f\0\0", "neither UBJ nor JSON"),
        (b"hello", "neither UBJ nor JSON"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "xgboost-model").write_bytes(content)
    found = refusal(tmp_path)
    assert "xgboost-model" in found
    assert words in found


@pytest.mark.parametrize("protocol", [2, 5])
def test_H06_a_pickled_booster_is_read(tmp_path: Path, protocol: int) -> None:
    features = np.arange(20, dtype=np.float32).reshape(10, 2)
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(features, label=features[:, 0]), 3)
    (tmp_path / "xgboost-model").write_bytes(pickle.dumps(booster, protocol))
    [(_, content)] = read_models(tmp_path, {})
    expected = booster.predict(xgboost.DMatrix(features))
    again = xgboost.Booster(model_file=bytearray(content))
    assert again.predict(xgboost.DMatrix(features)).tolist() == expected.tolist()


def test_an_archive_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "xgboost-model").write_bytes(b"{}")
    assert "no model file in its root" in refusal(tmp_path)


def test_user_code_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "xgboost-model").write_bytes(b'{"a": 1}')
    assert "SAGEMAKER_PROGRAM" in refusal(tmp_path, {"SAGEMAKER_PROGRAM": "inference.py"})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("")
    assert "code/inference.py" in refusal(tmp_path)
