"""The certificates for AWS's public host names: which there are, which names they cover, whether they are good.

The SDKs reach a few fixed hosts (`sts.<region>.amazonaws.com`) whatever endpoint is set, so the port ends TLS for
them. There is one certificate a region, because a wildcard stands for one label only and a certificate with the names
of all regions would make every handshake long. This module needs no cryptography: gateways load what it names with
the standard library. `clary.authority` makes the files.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from clary.settings import Settings

REGIONS = (
    "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1",
    "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5",
    "ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1",
    "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1",
    "mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip

DOMAIN = "amazonaws.com"
RENEWED_BEFORE = timedelta(days=30)

_PUBLIC = re.compile(r"(?:[a-z0-9_-]+\.)+amazonaws\.com")
_GLOBAL_NAMES = (f"*.{DOMAIN}", f"*.s3.{DOMAIN}")
_REGIONAL_NAMES = (
    "*.{}",
    "*.s3.{}",
    "*.s3.dualstack.{}",
    "*.dualstack.{}",
    "*.sagemaker.{}",
    "*.ecr.{}",
    "*.dkr.ecr.{}",
)


def directory(settings: Settings) -> Path:
    return settings.keys_dir / "certificates"


def authority_file(settings: Settings) -> Path:
    """The authority's certificate: what clients must trust. Its key was never written."""
    return directory(settings) / "authority.pem"


def chain_file(settings: Settings, region: str) -> Path:
    """Key and certificate for the hosts of one region."""
    return directory(settings) / f"{region}.pem"


def note_file(settings: Settings) -> Path:
    """What was made, written last: without it there is nothing."""
    return directory(settings) / "made.json"


def regions(settings: Settings) -> tuple[str, ...]:
    return REGIONS if settings.region in REGIONS else (*REGIONS, settings.region)


def are_good(settings: Settings, now: datetime) -> bool:
    """Whether every region has its certificate, for a while yet."""
    try:
        note = json.loads(note_file(settings).read_text())
        expires = datetime.fromisoformat(note["expires"])
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return set(regions(settings)) <= set(note["regions"]) and now < expires - RENEWED_BEFORE


def names(region: str) -> tuple[str, ...]:
    """The names in a region's certificate; those of no region stand in each."""
    return (
        *_GLOBAL_NAMES,
        *(name.format(f"{region}.{DOMAIN}") for name in _REGIONAL_NAMES),
        f"*.s3-{region}.{DOMAIN}",
    )


def is_public(host: str) -> bool:
    """Whether the host is one of AWS's."""
    return _PUBLIC.fullmatch(host) is not None


def region_for(host: str, known: Iterable[str], default: str) -> str | None:
    """The region whose certificate covers the host; None when no certificate does."""
    labels = {label.removeprefix("s3-") for label in host.split(".")}
    region = next((region for region in known if region in labels), default)
    parent = host.partition(".")[2]
    return region if f"*.{parent}" in names(region) else None
