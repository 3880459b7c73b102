"""Credentials for instances: who gets them, for which role, and what a damaged file of identities means."""

import json
import time
from pathlib import Path

import pytest

from clary.domain.rights import Access
from clary.gateway.callers import Callers
from clary.gateway.role_credentials import RoleCredentials
from clary.links import identities
from clary.links.identities import Identities, UserKey
from clary.testing.wire import TEST_ROOT, example_keyring
from clary.wire.sigv4 import Verifier

ROLE = "arn:aws:iam::123456789012:role/apps/runner"
INSTANCE = "i-" + "0" * 17
KEY = UserKey("AKIAUSER", "secret", "arn:aws:iam::123456789012:user/u")


def trust(service: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    keyring = example_keyring()
    return Callers(tmp_path, keyring, Verifier(keyring))


def giving(callers: Callers, directory: Path) -> RoleCredentials:
    return RoleCredentials(callers._keyring, callers, directory / "instances")


def test_I01_an_instance_gets_its_role_s_credentials_while_it_is_there(
    callers: Callers, tmp_path: Path
) -> None:
    identities.write(tmp_path, Identities(accesses=(Access(ROLE, trust=trust("sagemaker.amazonaws.com")),)))
    callers.load()
    place = tmp_path / "instances" / INSTANCE
    place.mkdir(parents=True)
    token = example_keyring().instance_token(ROLE, INSTANCE)
    status, answer = giving(callers, tmp_path).credentials(token)
    assert (status, answer["RoleArn"]) == (200, ROLE)
    grant = example_keyring().grant(answer["AccessKeyId"], answer["Token"])
    assert grant is not None
    assert grant.secret == answer["SecretAccessKey"]
    assert grant.principal.arn == "arn:aws:sts::123456789012:assumed-role/runner/SageMaker"
    assert grant.principal.issuer == ROLE
    assert not grant.principal.is_root
    assert grant.expires is not None
    assert 0 < grant.expires - time.time() <= 3600
    place.rmdir()
    assert giving(callers, tmp_path).credentials(token)[0] == 403


@pytest.mark.parametrize("token", ["", ".", "a.b", "é.é", "x" * 10_000])
def test_I01_a_token_of_nobody_s_gets_nothing(callers: Callers, tmp_path: Path, token: str) -> None:
    assert giving(callers, tmp_path).credentials(token)[0] == 403


def test_I01_a_session_token_is_no_instance_s_token(callers: Callers, tmp_path: Path) -> None:
    session = example_keyring().issue_session("r", "s", "123456789012", 2**40)
    assert giving(callers, tmp_path).credentials(session.session_token)[0] == 403
    token = example_keyring().instance_token(ROLE, INSTANCE)
    assert example_keyring().grant("ASIA", token) is None


@pytest.mark.parametrize("accesses", [(), (Access(ROLE, trust=trust("lambda.amazonaws.com")),)])
def test_I01_a_role_that_is_not_kept_or_does_not_trust_is_not_given(
    callers: Callers, tmp_path: Path, accesses: tuple[Access, ...]
) -> None:
    identities.write(tmp_path, Identities(accesses=accesses))
    callers.load()
    (tmp_path / "instances" / INSTANCE).mkdir(parents=True)
    status, answer = giving(callers, tmp_path).credentials(example_keyring().instance_token(ROLE, INSTANCE))
    assert (status, answer["code"]) == (403, "AccessDenied")
    assert ROLE in answer["message"]


def test_I01_a_file_that_cannot_be_read_leaves_the_root_key_alone(callers: Callers, tmp_path: Path) -> None:
    identities.write(tmp_path, Identities(keys=(KEY,), accesses=(Access(KEY.user_arn),)))
    callers.load()
    assert callers._keyring.grant("AKIAUSER", "") is not None
    identities.path(tmp_path).write_text("{")
    callers.load()
    assert callers._keyring.grant("AKIAUSER", "") is None
    assert callers._keyring.grant(TEST_ROOT.access_key_id, "") is not None
    assert not callers.rights.of
