"""The file with the keys: made once, and a damaged one is a complaint with the next step."""

import os
from pathlib import Path

import pytest

from clary import credentials
from clary.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


def test_the_root_key_is_made_once_and_for_its_owner_only(settings: Settings) -> None:
    made = credentials.ensure(settings)
    assert credentials.ensure(settings) == made == credentials.read(settings)
    assert credentials.path(settings).stat().st_mode & 0o777 == 0o600
    assert made.secret_access_key not in repr(made)


@pytest.mark.parametrize("content", ["", '{"ver', "[]", "{}", '{"root": {"access_key_id": "A"}}', "\u0000"])
def test_a_damaged_file_is_named_with_what_to_do(settings: Settings, content: str) -> None:
    credentials.path(settings).parent.mkdir(parents=True)
    credentials.path(settings).write_text(content)
    with pytest.raises(
        credentials.DamagedKeys, match=r"credentials.json is damaged. Move it away and start again"
    ):
        credentials.ensure(settings)


def test_without_a_server_there_are_no_keys(settings: Settings) -> None:
    with pytest.raises(FileNotFoundError):
        credentials.read(settings)


def test_what_a_killed_start_of_the_same_number_left_is_written_over(settings: Settings) -> None:
    settings.keys_dir.mkdir(parents=True)
    left = settings.keys_dir / f".credentials.json.{os.getpid()}"
    left.write_text('{"version": 1, "root": {"access_')
    made = credentials.ensure(settings)
    assert credentials.read(settings) == made
    assert not left.exists()
