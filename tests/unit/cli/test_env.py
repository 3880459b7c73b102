"""What `clary env` and `clary run` set, beside what a shell had set before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from clary import authority, credentials
from clary import settings as clary_settings
from clary.cli import CommandError, bundle, env
from clary.cli.server import Running
from clary.links import upstream_proxy
from clary.links.upstream_proxy import UpstreamProxy

OTHER = "-----BEGIN CERTIFICATE-----\nb3RoZXI=\n-----END CERTIFICATE-----"
THIRD = "-----BEGIN CERTIFICATE-----\ndGhpcmQ=\n-----END CERTIFICATE-----"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Running:
    settings = clary_settings.load({"data_dir": tmp_path_factory.mktemp("e"), "port": 8470}, {})
    settings.run_dir.mkdir()
    key = credentials.ensure(settings)
    authority.make(settings, datetime.now(UTC))
    return Running(settings, "http://127.0.0.1:8470", key)


def test_U02_the_sdks_get_a_proxy_with_its_token_and_what_to_trust(found: Running) -> None:
    values = env.full(found, {})
    token = credentials.proxy_token(found.settings)
    assert len(token) == 40
    assert values["HTTPS_PROXY"] == values["https_proxy"] == f"http://clary:{token}@127.0.0.1:8470"
    assert values["NO_PROXY"] == values["no_proxy"] == "127.0.0.1,localhost"
    assert values["AWS_CA_BUNDLE"] == values["REQUESTS_CA_BUNDLE"] == str(bundle.path(found.settings))
    assert env.minimal(found).items() <= values.items()


def test_U02_who_went_without_a_proxy_still_does_except_for_aws_hosts(found: Running) -> None:
    values = env.full(found, {"NO_PROXY": "*, corp.example,.amazonaws.com,s3.amazonaws.com"})
    assert values["NO_PROXY"] == "127.0.0.1,localhost,corp.example"


def test_U02_the_proxy_before_is_handed_on_and_not_lost_to_our_own(found: Running) -> None:
    env.full(found, {"HTTPS_PROXY": "http://corp:3128", "NO_PROXY": "corp.example"})
    before = UpstreamProxy("http://corp:3128", "corp.example")
    assert upstream_proxy.noted(found.settings) == before
    env.full(found, env.full(found, {}))
    assert upstream_proxy.noted(found.settings) == before


def test_U02_what_was_trusted_before_still_is(found: Running, tmp_path: Path) -> None:
    (tmp_path / "before.pem").write_text(f"# a comment\n{OTHER}\n")
    (tmp_path / "requests.pem").write_text(f"{THIRD}\n{OTHER}\n")
    said = {
        "AWS_CA_BUNDLE": str(tmp_path / "before.pem"),
        "REQUESTS_CA_BUNDLE": str(tmp_path / "requests.pem"),
    }
    file = Path(env.full(found, said)["AWS_CA_BUNDLE"])
    first = file.read_text()
    assert first.count("BEGIN CERTIFICATE") == 3
    assert OTHER in first
    assert THIRD in first
    assert Path(env.full(found, env.full(found, said))["AWS_CA_BUNDLE"]).read_text() == first
    assert Path(env.full(found, {})["AWS_CA_BUNDLE"]).read_text().count("BEGIN CERTIFICATE") > 50


def test_U02_ways_past_the_server_are_closed() -> None:
    before = {
        "AWS_ENDPOINT_URL_S3": "http://elsewhere",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "HOME": "/x",
    }
    last = env.lines({"A": "it's"}, before)
    assert last[0] == "export A='it'\"'\"'s'"
    assert last[1].split()[1:] == [
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_ENDPOINT_URL_S3",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ]


def test_Z02_a_server_of_an_older_version_is_to_be_restarted(root: Path) -> None:
    settings = clary_settings.load({"data_dir": root}, {})
    key = credentials.ensure(settings)
    with pytest.raises(CommandError, match="clary down, clary up"):
        env.full(Running(settings, "http://127.0.0.1:1", key), {})
