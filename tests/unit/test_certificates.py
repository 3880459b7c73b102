"""The private authority: what its certificates are good for, and what for not."""

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from clary import authority, certificates
from clary import settings as clary_settings
from clary.settings import Settings

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = clary_settings.load({"data_dir": tmp_path_factory.mktemp("c"), "region": "xx-moon-1"}, {})
    authority.make(settings, NOW)
    return settings


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("sts.us-east-1.amazonaws.com", "us-east-1"),
        ("sts.eu-west-3.amazonaws.com", "eu-west-3"),
        ("sts.amazonaws.com", "us-west-2"),
        ("iam.amazonaws.com", "us-west-2"),
        ("bucket.s3.amazonaws.com", "us-west-2"),
        ("bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("bucket.s3-eu-west-1.amazonaws.com", "eu-west-1"),
        ("sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com", "us-east-1"),
        ("runtime.sagemaker.us-east-2.amazonaws.com", "us-east-2"),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "us-east-1"),
        ("a.b.c.us-east-1.amazonaws.com", None),
        ("sts.xx-nowhere-1.amazonaws.com", None),
    ],
)
def test_U02_a_host_has_the_certificate_of_its_region(host: str, region: str | None) -> None:
    assert certificates.region_for(host, certificates.REGIONS, "us-west-2") == region


@pytest.mark.parametrize(
    ("host", "is_public"),
    [
        ("sts.amazonaws.com", True),
        ("a.b.s3.eu-west-1.amazonaws.com", True),
        ("amazonaws.com", False),
        ("amazonaws.com.evil.example", False),
        ("notamazonaws.com", False),
        ("pypi.org", False),
        ("127.0.0.1", False),
    ],
)
def test_U02_only_names_below_amazonaws_com_are_answered_here(host: str, is_public: bool) -> None:
    assert certificates.is_public(host) is is_public


def test_Z01_the_authority_signs_for_amazonaws_com_and_nothing_else(made: Settings) -> None:
    own = _certificate(certificates.authority_file(made))
    limits = own.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [name.value for name in limits.value.permitted_subtrees or []] == ["amazonaws.com"]
    assert {str(network.value) for network in limits.value.excluded_subtrees or []} == {"0.0.0.0/0", "::/0"}


def test_Z01_the_authority_s_own_key_is_written_nowhere_and_the_rest_is_for_the_owner_only(
    made: Settings,
) -> None:
    files = list(certificates.directory(made).iterdir())
    own = _certificate(certificates.authority_file(made)).public_key()
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        if b"PRIVATE KEY" in file.read_bytes():
            assert _certificate(file).public_key() != own
    assert b"PRIVATE" not in certificates.authority_file(made).read_bytes()


def test_U02_every_region_s_certificate_is_trusted_by_who_trusts_the_authority(made: Settings) -> None:
    regions = certificates.regions(made)
    assert "xx-moon-1" in regions
    for region in regions:
        leaf = _certificate(certificates.chain_file(made, region))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(names.get_values_for_type(x509.DNSName)) == certificates.names(region)
        leaf.verify_directly_issued_by(_certificate(certificates.authority_file(made)))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificates.chain_file(made, region))


def test_U02_certificates_are_made_again_before_they_expire_and_for_a_new_region(made: Settings) -> None:
    assert certificates.are_good(made, NOW)
    assert not certificates.are_good(made, NOW + authority.LIFETIME - timedelta(days=29))
    other = clary_settings.load({"data_dir": made.data_dir, "region": "xx-mars-1"}, {})
    assert not certificates.are_good(other, NOW)


def test_U02_what_was_made_by_half_is_not_good(root: Path) -> None:
    settings = clary_settings.load({"data_dir": root}, {})
    assert not certificates.are_good(settings, NOW)
    certificates.directory(settings).mkdir(parents=True)
    certificates.note_file(settings).write_text(json.dumps({"version": 1}))
    assert not certificates.are_good(settings, NOW)


def _certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())
