"""Files of images that were made of requirements: what is written is read, and nothing else is found."""

from pathlib import Path

import pytest

from clary.links.images import ImageFileError, OwnImage, is_name, names, read, remove, write

MADE = OwnImage("churn-2.1", "sklearn", ('a[b] >= 1 ; extra == "c\\d"', "é"), ("a==1",))


def test_what_is_written_is_read_until_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    assert names(folder) == ()
    write(folder, MADE)
    assert read(folder, MADE.name) == MADE
    assert names(folder) == (MADE.name,)
    assert remove(folder, MADE.name)
    assert not remove(folder, MADE.name)
    assert read(folder, MADE.name) is None


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", "a:1", ".a", "a.", "a" * 129, "a b"])
def test_what_is_no_name_is_nobody(tmp_path: Path, name: str) -> None:
    assert not is_name(name)
    assert read(tmp_path, name) is None
    assert not remove(tmp_path, name)


@pytest.mark.parametrize("text", ["on = ", 'on = "a"', "on = 1\nrequirements = []\npackages = []"])
def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ImageFileError, match=r"a\.toml"):
        read(tmp_path, "a")
