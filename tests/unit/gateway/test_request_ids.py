"""Request ids look like UUIDs and never repeat."""

import re

from clary.gateway.request_ids import request_ids


def test_ids_have_the_form_of_a_uuid() -> None:
    new_id = request_ids()
    for _ in range(3):
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", new_id())


def test_ids_differ_within_and_between_processes() -> None:
    one, other = request_ids(b"12345678"), request_ids(b"87654321")
    ids = [make() for make in (one, other) for _ in range(1000)]
    assert len(set(ids)) == len(ids)
