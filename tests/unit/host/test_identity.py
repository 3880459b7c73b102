"""What an instance is told about its role, and where its token lies."""

import dataclasses
import stat
from pathlib import Path

import pytest

from clary import credentials
from clary.host.identity import role_environment
from clary.settings import Settings
from clary.wire.sessions import KeyRing
from hosting.harness import toy_spec

ROLE = "arn:aws:iam::123456789012:role/apps/runner"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(data_dir=tmp_path, cache_dir=tmp_path, port=4711)
    credentials.ensure(found)
    return found


def test_I01_a_role_s_environment_names_the_gateways_and_a_file_that_is_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    spec, directory = toy_spec(1, execution_role_arn=ROLE), tmp_path / "i"
    for _ in range(2):  # a start that was cut off is begun again
        found = role_environment(settings, spec, directory)
    assert found == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4711",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:4711/_clary/credentials/runner",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/opt/ml/credentials/token",
    }
    file = directory / "opt/ml/credentials/token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = KeyRing.load(credentials.path(settings), settings.account)
    assert keys.read_instance_token(file.read_text()) == (ROLE, spec.instance_id)


@pytest.mark.parametrize("changes", [{}, {"execution_role_arn": ROLE, "network_isolated": True}])
def test_I01_without_a_role_or_a_network_there_are_no_credentials(
    settings: Settings, tmp_path: Path, changes: dict[str, object]
) -> None:
    spec = dataclasses.replace(toy_spec(1), **changes)  # type: ignore[arg-type]
    assert role_environment(settings, spec, tmp_path / "i") == {}
    assert not (tmp_path / "i").exists()
