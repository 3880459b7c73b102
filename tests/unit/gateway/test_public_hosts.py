"""Requests under AWS's own host names."""

import pytest

from clary.gateway.public_hosts import is_telemetry, path_style
from clary.wire.heads import Head


@pytest.mark.parametrize(
    ("host", "target", "routed"),
    [
        (b"bucket.s3.us-east-1.amazonaws.com", b"/a/b?x=1", b"/bucket/a/b?x=1"),
        (b"bucket.s3.us-east-1.amazonaws.com:443", b"/", b"/bucket/"),
        (b"bucket.s3.amazonaws.com", b"/?list-type=2", b"/bucket/?list-type=2"),
        (b"bucket.s3-eu-west-1.amazonaws.com", b"/k", b"/bucket/k"),
        (b"bucket.s3.dualstack.eu-west-1.amazonaws.com", b"/k", b"/bucket/k"),
        (b"dotted.bucket.s3.eu-west-1.amazonaws.com", b"/k", b"/dotted.bucket/k"),
        (b"s3.us-east-1.amazonaws.com", b"/bucket/k", b"/bucket/k"),
        (b"sts.us-east-1.amazonaws.com", b"/", b"/"),
        (b"127.0.0.1:8470", b"/bucket/k", b"/bucket/k"),
        (b"bucket.s3.us-east-1.example.com", b"/k", b"/k"),
        (b"bad/bucket?.s3.us-east-1.amazonaws.com", b"/k", b"/k"),
        (b"bad HTTP/1.1 .s3.us-east-1.amazonaws.com", b"/k", b"/k"),
    ],
)
def test_U02_a_bucket_in_the_host_name_is_routed_by_path(host: bytes, target: bytes, routed: bytes) -> None:
    head = Head(b"GET", target, {b"host": host, b"range": b"bytes=0-1"})
    found = path_style(head)
    assert found.target == routed
    assert found.method == b"GET"
    assert found.headers == head.headers


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        (b"sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com", True),
        (b"sm-pysdk-t-eu-west-1.s3.eu-west-1.amazonaws.com:443", True),
        (b"bucket.s3.us-east-1.amazonaws.com", False),
        (b"sts.us-east-1.amazonaws.com", False),
    ],
)
def test_U02_telemetry_is_known_by_its_host(host: bytes, is_it: bool) -> None:
    assert is_telemetry(Head(b"GET", b"/telemetry?x-accountId=1", {b"host": host})) is is_it
