"""What the host reads of a script's source, and what of its requirements it hands on."""

import json
import zipfile
from pathlib import Path

import pytest

from clary.domain.instances import Artifact, InstanceSpec
from clary.host import user_code
from clary.host.failures import Refused
from hosting.harness import toy_spec


def spec(**environment: str) -> InstanceSpec:
    return toy_spec(1, environment=environment)


def write(directory: Path, text: str, place: str = "opt/ml/model/code/requirements.txt") -> None:
    (directory / place).parent.mkdir(parents=True, exist_ok=True)
    (directory / place).write_text(text)


def test_H06_a_source_archive_becomes_an_artefact_and_its_variable_a_place() -> None:
    found = user_code.with_source(
        spec(SAGEMAKER_SUBMIT_DIRECTORY="s3://b/sourcedir.tar.gz", SAGEMAKER_PROGRAM="serve.py")
    )
    assert found.artifacts == (Artifact("s3://b/sourcedir.tar.gz", "/opt/ml/code", "archive"),)
    assert found.environment == {
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/code",
        "SAGEMAKER_PROGRAM": "serve.py",
    }


def test_a_source_inside_the_model_stays_where_it_is() -> None:
    given = spec(SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/model/code")
    assert user_code.with_source(given) == given


def test_H06_a_script_is_announced_or_found(tmp_path: Path) -> None:
    assert not user_code.is_there(spec(), tmp_path)
    assert user_code.is_there(spec(SAGEMAKER_PROGRAM="serve.py"), tmp_path)
    write(tmp_path, "", "opt/ml/model/code/inference.py")
    assert user_code.is_there(spec(), tmp_path)


def test_H06_the_source_s_requirements_come_before_the_model_s(tmp_path: Path) -> None:
    given = spec(SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/code")
    assert user_code.requirements_of(given, tmp_path) == ""
    write(tmp_path, "model\n")
    assert user_code.requirements_of(given, tmp_path) == "model\n"
    write(tmp_path, "source\n", "opt/ml/code/requirements.txt")
    assert user_code.requirements_of(given, tmp_path) == "source\n"


def test_H06_what_names_packages_is_handed_on_without_comments(tmp_path: Path) -> None:
    write(
        tmp_path,
        "# the usual\n"
        "inflection\n"
        "requests[security] >= 2 ; python_version > '3'  # note\n"
        "numpy==2.0 \\\n  --hash=sha256:00\n"
        "--extra-index-url https://example.com/simple\n"
        "tiny @ https://example.com/tiny-1-py3-none-any.whl\n"
        "-r more.txt\n",
    )
    write(tmp_path, "joblib~=1.4\n", "opt/ml/model/code/more.txt")
    assert user_code.requirements_of(spec(), tmp_path).splitlines() == [
        "inflection",
        "requests[security] >= 2 ; python_version > '3'",
        "numpy==2.0    --hash=sha256:00",
        "--extra-index-url https://example.com/simple",
        "tiny @ https://example.com/tiny-1-py3-none-any.whl",
        "joblib~=1.4",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        ".",
        "./tiny-1-py3-none-any.whl",
        "/etc/passwd",
        "-r /etc/passwd",
        "-r ../weights",
        "-c /etc/passwd",
        "--find-links /srv",
        "--index-url file:///srv",
        "tiny @ file:///srv/tiny.whl",
        "tiny@../tiny.whl",
        "git+https://example.com/tiny",
        "tiny @ git+https://example.com/tiny",
        "file:///etc/passwd",
        "https://example.com/tiny.whl",
        "-r requirements.txt",
        "--config-settings x=y",
        "--extra-index-url https://example.com/${UV_DEFAULT_INDEX}",
        "tiny @ https://example.com/${PIP_INDEX_URL}/tiny.whl",
    ],
)
def test_H06_what_names_files_or_builds_is_refused_by_name(tmp_path: Path, line: str) -> None:
    write(tmp_path, line + "\n")
    with pytest.raises(Refused) as refused:
        user_code.requirements_of(spec(), tmp_path)
    assert refused.value.code == "EnvironmentFailed"
    assert "cannot be installed" in str(refused.value)


def test_a_link_out_of_the_source_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "root:x:0:0\n", "secret")
    folder = tmp_path / "opt/ml/model/code"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match="no such file beside the script"):
        user_code.requirements_of(spec(), tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000])
def test_requirements_that_are_no_such_text_are_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "")
    (tmp_path / "opt/ml/model/code/requirements.txt").write_bytes(content)
    with pytest.raises(Refused, match="cannot be installed"):
        user_code.requirements_of(spec(), tmp_path)


def mar(directory: Path, requirements: bytes, name: str = "wanted.txt") -> Path:
    path = directory / "opt/ml/model/net.mar"
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = {"model": {"modelName": "net", "handler": "net.py", "requirementsFile": name}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("wanted.txt", requirements)
    return path


def test_H06_a_torchserve_archive_is_code_and_names_its_requirements(tmp_path: Path) -> None:
    mar(tmp_path, b"inflection==0.5.1  # one\n")
    assert user_code.is_there(spec(), tmp_path)
    assert user_code.requirements_of(spec(), tmp_path) == "inflection==0.5.1\n"


@pytest.mark.parametrize(
    ("requirements", "name", "words"),
    [
        (b"-e .\n", "wanted.txt", "is not supported here"),
        (b"x" * 70_000, "wanted.txt", "more than 65,536 bytes"),
        (b"", "../../etc/passwd", "no file of the archive"),
        (b"", "gone.txt", "gone.txt"),
        (b"\xff", "wanted.txt", "utf-8"),
    ],
)
def test_H06_requirements_of_an_archive_are_a_stranger_s(
    tmp_path: Path, requirements: bytes, name: str, words: str
) -> None:
    mar(tmp_path, requirements, name)
    with pytest.raises(Refused, match=words):
        user_code.requirements_of(spec(), tmp_path)


def test_H06_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    mar(tmp_path, b"").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(Refused, match=r"net\.mar"):
        user_code.requirements_of(spec(), tmp_path)
