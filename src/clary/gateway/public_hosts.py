"""What is special about requests for AWS's public host names: their certificates, virtual buckets, telemetry.

The SDKs sign for the host they believe to reach, so a request is verified as it came; only then, on its way to
control, does `bucket.s3.region.amazonaws.com/key` become `/bucket/key`.
"""

import re
import ssl

from clary import certificates
from clary.settings import Settings
from clary.wire.heads import Head

_VIRTUAL = re.compile(
    rb"([a-z0-9._-]+)\.s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?::443)?", re.IGNORECASE
)
_TELEMETRY = re.compile(rb"sm-pysdk-t-[a-z0-9-]+\.s3[.-][a-z0-9.-]*amazonaws\.com(?::443)?", re.IGNORECASE)


class Certificates:
    """The contexts TLS is ended with, loaded on first need and again when `clary up` has renewed them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._regions = certificates.regions(settings)
        self._loaded: dict[str, tuple[int, ssl.SSLContext]] = {}

    def context(self, host: str) -> ssl.SSLContext | None:
        """None when no certificate covers this host. Raises OSError when the certificates are not there."""
        region = certificates.region_for(host, self._regions, self._settings.region)
        if region is None:
            return None
        file = certificates.chain_file(self._settings, region)
        written = file.stat().st_mtime_ns
        found = self._loaded.get(region)
        if found is None or found[0] != written:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            context.set_alpn_protocols(["http/1.1"])
            found = self._loaded[region] = written, context
        return found[1]


def is_telemetry(head: Head) -> bool:
    """Whether it is the SageMaker SDK telling its makers what it is used for."""
    return _TELEMETRY.fullmatch(head.get(b"host")) is not None


def path_style(head: Head) -> Head:
    """The head with the bucket in the path where the host name held it; else the head as it is."""
    found = _VIRTUAL.fullmatch(head.get(b"host"))
    if found is None:
        return head
    return Head(head.method, b"/" + found[1] + head.target, head.headers)
