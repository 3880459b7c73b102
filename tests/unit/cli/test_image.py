"""`clary image` without a server: what it lists and shows, and what it refuses before anything is installed."""

from pathlib import Path

import pytest

from clary.cli import main
from clary.links.images import OwnImage, names, write


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("i")  # sockets lie below it, so its path has to be short
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    return place / "data"


def clary(data: Path, *words: str) -> int:
    return main(["image", *words, "--data-dir", str(data)])


def test_H04_all_images_are_listed_with_one_s_own(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data / "images", OwnImage("churn", "sklearn", ("a",), ("a==1",)))
    assert clary(data, "list") == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["sagemaker-xgboost"][:3] == ["xgboost", rows["xgboost"][1], "serve"]
    assert rows["churn"][:3] == ["sklearn", "and", "more"]


def test_an_image_is_shown_by_name_or_uri(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data / "images", OwnImage("churn", "sklearn", ("lifelines",), ("lifelines==0.30.0",)))
    assert clary(data, "show", "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:3") == 0
    shown = capsys.readouterr().out
    for words in (
        "sklearn",
        "made of      lifelines",
        "lifelines 0.30.0",
        "built when it is first needed",
        "*.onnx",
    ):
        assert (words in shown) is (words != "*.onnx"), words
    assert clary(data, "show", "pytorch-inference") == 0
    assert "a model with *.onnx and no script is onnx's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show",), "needs an image's name"),
        (("show", "nobody"), "no runtime answers for nobody"),
        (("show", "huggingface-tensorflow-inference:2"), "transformers has left TensorFlow behind"),
        (("make", "--on", "nobody", "mine", "-r", "FILE"), "there is no framework nobody"),
        (("remove", "xgboost"), "there is no image xgboost of your own"),
        (("make", "mine"), "needs a requirements file"),
        (("make", "Mine", "-r", "FILE"), "no name for an image"),
        (("make", "sagemaker-xgboost", "-r", "FILE"), "a name of Clary's own"),
        (("make", "xgboost_script", "-r", "FILE"), "a name of Clary's own|no name for an image"),
        (("make", "mine", "-r", "FILE", "--on", "xgboost_script"), "there is no framework xgboost_script"),
        (("make", "mine", "-r", "missing.txt"), "there is no file missing.txt"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_next_step(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("inflection\n")
    assert clary(data, *[str(file) if word == "FILE" else word for word in words]) == 1
    said = capsys.readouterr().err
    assert any(each in said for each in complaint.split("|")), said
    assert names(data / "images") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "names no package"),
        ("-e .\n", "'-e .' is not supported"),
        ("./local.whl\n", "not supported"),
    ],
)
def test_a_file_that_names_more_than_packages_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    assert clary(data, "make", "mine", "-r", str(tmp_path / "requirements.txt")) == 1
    assert complaint in capsys.readouterr().err
