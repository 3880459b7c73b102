"""S3's two ways of addressing: a bucket in the host's name is put where all the rest expects it, in the path.

`BUCKET.DOMAIN` and `BUCKET.s3.DOMAIN` below the configured base domain. Only requests for S3 are looked at, after their
signature was verified as they were sent.
"""

import re

from clary.wire.heads import Head

_PORT = re.compile(rb":\d+$")


def path_style(head: Head, base_domain: str) -> Head:
    """The same request with its bucket in the path."""
    bucket = bucket_in_host(head.get(b"host"), base_domain)
    return Head(head.method, b"/" + bucket + head.target, head.headers) if bucket else head


def bucket_in_host(host: bytes, base_domain: str) -> bytes:
    """The bucket that a host's name begins with, b"" when it names none."""
    name = _PORT.sub(b"", host.lower())
    suffix = b"." + base_domain.lower().encode()
    if not base_domain or not name.endswith(suffix):
        return b""
    bucket = name.removesuffix(suffix)
    return b"" if bucket == b"s3" else bucket.removesuffix(b".s3")
