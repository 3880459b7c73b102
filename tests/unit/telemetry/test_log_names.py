"""Names of groups and streams never lead out of their directory and come back as they were."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.telemetry.log_names import decode, encode, remember

names = st.text(min_size=1, max_size=512).filter(
    lambda name: not any("\ud800" <= char <= "\udfff" for char in name)
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(max_examples=200)
@given(name=names | st.text(alphabet="./~%\0", min_size=1, max_size=8))
def test_names_come_back(directory: Path, name: str) -> None:
    encoded = remember(directory, name)
    assert decode(directory, encoded) == name


@settings(max_examples=200)
@given(names | st.text(alphabet="./~%\0", min_size=1, max_size=8))
def test_a_file_name_is_one_harmless_component(name: str) -> None:
    encoded = encode(name)
    assert encoded not in (".", "..") and not encoded.startswith(".")
    assert "/" not in encoded and "\0" not in encoded
    assert len(encoded.encode()) <= 240


@settings(max_examples=100)
@given(names, names)
def test_different_names_have_different_files(a: str, b: str) -> None:
    assert (encode(a) == encode(b)) == (a == b)


def test_a_long_name_keeps_its_line_ends(directory: Path) -> None:
    name = "a\r\nb\rc" * 100
    assert decode(directory, remember(directory, name)) == name


def test_a_half_written_name_is_not_shown(directory: Path) -> None:
    encoded = remember(directory, "x" * 400)
    (directory / f"{encoded}.name").write_text("x" * 10)
    assert decode(directory, encoded) is None
    assert remember(directory, "x" * 400) == encoded  # whoever writes there next, after the crash
    assert decode(directory, encoded) == "x" * 400
