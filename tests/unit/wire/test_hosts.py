"""Which bucket a host's name names."""

import pytest

from clary.wire.heads import Head
from clary.wire.hosts import bucket_in_host, path_style


@pytest.mark.parametrize(
    ("host", "domain", "bucket"),
    [
        (b"b.localhost:8470", "localhost", b"b"),
        (b"B.LocalHost", "localhost", b"b"),
        (b"with.dots.localhost", "localhost", b"with.dots"),
        (b"b.s3.localhost", "localhost", b"b"),
        (b"s3.localhost", "localhost", b""),
        (b"localhost:8470", "localhost", b""),
        (b"127.0.0.1:8470", "localhost", b""),
        (b"b.localhost", "", b""),
        (b"b.localhost", "s3.example", b""),
        (b"b.s3.example:1", "s3.example", b"b"),
        (b"notlocalhost", "localhost", b""),
        (b"", "localhost", b""),
    ],
)
def test_the_bucket_stands_before_the_base_domain(host: bytes, domain: str, bucket: bytes) -> None:
    assert bucket_in_host(host, domain) == bucket


def test_the_path_gets_the_bucket_and_keeps_the_rest() -> None:
    head = Head(b"GET", b"/a%20b?x=1", {b"host": b"b.localhost"})
    changed = path_style(head, "localhost")
    assert (changed.path, changed.query) == (b"/b/a%20b", b"x=1")
    assert path_style(head, "") is head
