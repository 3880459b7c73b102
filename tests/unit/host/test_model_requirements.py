"""What an MLflow model wants installed, as its own files say it."""

import sys
from pathlib import Path

import pytest

from clary.host.failures import Refused
from clary.host.model_requirements import read

CONDA = """
channels:
- conda-forge
dependencies:
- python=3.11.7
- pip<=25
- pip:
  - mlflow==2.20.1
  - 'scikit-learn==1.6.1'
name: mlflow-env
"""
PYTHON_ENV = """
python: {python}
build_dependencies:
- pip==23.1
- setuptools==68.2
- wheel==0.40
dependencies:
- -r requirements.txt
"""
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def model(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_H06_a_model_without_files_of_its_own_needs_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == ("", "")


def test_H06_mlflow_s_pin_is_kept_for_all_of_mlflow_s_files(tmp_path: Path) -> None:
    text, _ = read(model(tmp_path, requirements__txt="mlflow==2.20.1\nnumpy==1.26.4\n# a note\n"))
    assert text.splitlines() == ["mlflow==2.20.1", "numpy==1.26.4", "pandas", "mlflow-skinny==2.20.1"]


@pytest.mark.parametrize(
    ("line", "skinny"),
    [
        ("mlflow>=2.9,<3", "mlflow-skinny>=2.9,<3"),
        ("mlflow[extras]==3.1.0", "mlflow-skinny==3.1.0"),
        ("MLflow == 3.1.0 ; python_version > '3.8'", "mlflow-skinny== 3.1.0"),
        ("mlflow", "mlflow-skinny"),
        ("cloudpickle==3.1.2", "mlflow-skinny"),
    ],
)
def test_H06_mlflow_is_always_there_in_the_version_that_is_wanted(
    tmp_path: Path, line: str, skinny: str
) -> None:
    text, _ = read(model(tmp_path, requirements__txt=line))
    assert text.splitlines() == [line, "pandas", "numpy", skinny]


def test_H06_what_is_named_already_is_not_named_again(tmp_path: Path) -> None:
    text, _ = read(model(tmp_path, requirements__txt="mlflow_skinny==3.17.2\npandas<3\nnumpy\n"))
    assert text == "mlflow_skinny==3.17.2\npandas<3\nnumpy\n"


def test_H06_python_env_names_the_requirements_and_what_old_releases_import(tmp_path: Path) -> None:
    text, _ = read(
        model(tmp_path, requirements__txt="mlflow==3.17.2\n", python_env__yaml=PYTHON_ENV.format(python=HERE))
    )
    assert text.splitlines() == [
        "mlflow==3.17.2",
        "setuptools==68.2",
        "pandas",
        "numpy",
        "mlflow-skinny==3.17.2",
    ]


def test_H06_conda_s_pip_section_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    text, _ = read(model(tmp_path, conda__yaml=CONDA))
    assert text.splitlines()[:2] == ["mlflow==2.20.1", "scikit-learn==1.6.1"]


def test_H06_packages_of_conda_are_refused_by_name(tmp_path: Path) -> None:
    content = CONDA.replace("- pip<=25", "- libgdal=3.6\n- cudatoolkit")
    with pytest.raises(Refused, match=r"libgdal, cudatoolkit would need conda.*requirements\.txt"):
        read(model(tmp_path, conda__yaml=content))


@pytest.mark.parametrize(
    "line", ["-e .", "git+https://example.org/x", "./wheels/a.whl", "-c constraints.txt"]
)
def test_H06_a_line_that_is_not_safe_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(Refused, match="is not supported here"):
        read(model(tmp_path, requirements__txt=line))


def test_H06_another_python_is_said_when_something_cannot_be_installed(tmp_path: Path) -> None:
    _, hint = read(
        model(tmp_path, requirements__txt="a==1\n", python_env__yaml=PYTHON_ENV.format(python="3.8.10"))
    )
    assert "logged with Python 3.8, this is" in hint
    _, hint = read(model(tmp_path, python_env__yaml=PYTHON_ENV.format(python=HERE)))
    assert hint == ""
