"""Where settings come from, and which are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clary.settings import SettingsError, dump, load, read


def test_later_sources_win(root: Path) -> None:
    (root / "clary.toml").write_text('port = 1111\ngateways = 3\nprewarm = ["xgboost"]\n')
    found = load({"data_dir": root, "port": 3333}, {"CLARY_PORT": "2222", "CLARY_STOP_GRACE_S": "1.5"})
    assert (found.port, found.gateways, found.stop_grace_s, found.prewarm) == (3333, 3, 1.5, ("xgboost",))


def test_what_was_not_said_on_the_command_line_decides_nothing(root: Path) -> None:
    assert load({"data_dir": root, "port": None}, {"CLARY_PORT": "2222"}).port == 2222


def test_settings_survive_being_handed_to_a_process(root: Path) -> None:
    found = load({"data_dir": root}, {"CLARY_INDEX_URLS": "xgboost=https://example.org/simple"})
    (root / "settings.json").write_text(dump(found))
    assert read(root / "settings.json") == found
    assert found.index_urls == {"xgboost": "https://example.org/simple"}


def test_settings_of_another_version_can_be_read(root: Path) -> None:
    found = load({"data_dir": root, "port": 1234, "log_level": "DEBUG"}, {})
    values = json.loads(dump(found)) | {"a_setting_that_has_gone": 1}
    del values["log_level"]
    (root / "settings.json").write_text(json.dumps(values))
    assert read(root / "settings.json") == replace(found, log_level="INFO")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PORT", "many", "not a whole number"),
        ("PORT", "70000", "between 0 and 65535"),
        ("ACCOUNT", "12", "twelve digits"),
        ("GATEWAYS", "0", "at least 1"),
        ("EPHEMERAL", "perhaps", "not true or false"),
        ("CUDA", "perhaps", "auto, yes or no"),
        ("DISK_RESERVE_BYTES", "-1", "must not be negative"),
        ("HOST", "0.0.0.0", "only loopback"),
        ("HOST", "example.org", "only loopback"),
    ],
)
def test_a_bad_value_is_refused_by_name(root: Path, name: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load({"data_dir": root}, {f"CLARY_{name}": value})


def test_an_unknown_setting_is_refused_by_name(root: Path) -> None:
    (root / "clary.toml").write_text("prot = 1\n")
    with pytest.raises(SettingsError, match="'prot', which is no setting"):
        load({"data_dir": root}, {})


def test_a_data_directory_too_deep_for_sockets_says_by_how_much(root: Path) -> None:
    with pytest.raises(SettingsError, match="bytes too long for the sockets"):
        load({"data_dir": root / ("d" * 80)}, {})
