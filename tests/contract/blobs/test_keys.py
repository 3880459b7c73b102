"""Keys: any text, never a path; listed in the order of their bytes."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blobs.harness import BUCKET, STORES, Place, content_of, put
from clary.blobs.base import (
    BlobStore,
    parse_uri,
)

_ODD = st.sampled_from(
    ["a", "b", "/", "//", ".", "..", " ", "é", "中", "\U0001f600", "\udcff", "\udc80", "\x00", "\x7f"]
)
_KEYS = st.lists(st.lists(_ODD, min_size=1, max_size=5).map("".join), max_size=25, unique=True)


@given(
    keys=_KEYS,
    prefix=st.lists(_ODD, max_size=2).map("".join),
    delimiter=st.sampled_from(["", "/", "a", "..", "é"]),
    limit=st.integers(1, 5),
    start_after=st.one_of(st.just(""), st.lists(_ODD, max_size=3).map("".join)),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", sorted(STORES))
def test_listing_is_what_a_sorted_dictionary_would_give(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[str],
    prefix: str,
    delimiter: str,
    limit: int,
    start_after: str,
) -> None:
    store = STORES[kind](tmp_path_factory.mktemp("objects")).store
    try:
        store.create_bucket(BUCKET, "us-east-1")
        store.create_bucket("other", "us-east-1")
        for key in keys:
            put(store, key)
            put(store, key + "x", bucket="other")
        expected = _expected(keys, prefix, delimiter, start_after)
        assert _listed(store, prefix, delimiter, start_after, limit) == expected
        assert _listed(store, prefix, delimiter, start_after, 1000) == expected
    finally:
        store.close()


def test_pages_skip_what_lies_below_a_common_prefix(place: Place) -> None:
    for number in range(30):
        put(place.store, f"{number % 3}/{number}")
    assert place.reader.objects(BUCKET, delimiter="/").prefixes == ("0/", "1/", "2/")
    page = place.reader.objects(BUCKET, delimiter="/", limit=2)
    assert (page.prefixes, page.next) == (("0/", "1/"), "1/")
    last = place.reader.objects(BUCKET, delimiter="/", limit=2, start_after="1/")
    assert (last.prefixes, last.next) == (("2/",), None)


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _expected(keys: list[str], prefix: str, delimiter: str, start_after: str) -> list[str]:
    """Rolled up names are told apart from keys by a mark behind them."""
    names: list[str] = []
    for key in sorted(keys, key=_raw):
        if not key.startswith(prefix) or _raw(key) <= _raw(start_after):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        name = key if end < 0 else key[: end + len(delimiter)]
        if end >= 0 and name == start_after:
            continue
        marked = name + ("|P" if end >= 0 else "|K")
        if marked not in names:
            names.append(marked)
    return names


def _listed(store: BlobStore, prefix: str, delimiter: str, start_after: str, limit: int) -> list[str]:
    names: list[str] = []
    while True:
        page = store.objects(BUCKET, prefix=prefix, delimiter=delimiter, start_after=start_after, limit=limit)
        assert len(page.objects) + len(page.prefixes) <= limit
        found = [info.key + "|K" for info in page.objects] + [name + "|P" for name in page.prefixes]
        names += sorted(found, key=lambda marked: _raw(marked[:-2]))
        if page.next is None:
            return names
        start_after = page.next


def test_a_thousand_hostile_keys_stay_inside_the_store(place: Place, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    rng = random.Random(7)
    pieces = [
        "..",
        "/",
        "\\",
        ".",
        "\x00",
        "etc",
        "passwd",
        "~",
        "%2e%2e",
        "\n",
        "\u202e",
        "a" * 200,
        "$HOME",
        "*",
    ]
    keys = {"".join(rng.choices(pieces, k=rng.randint(1, 5))) for _ in range(2000)}
    keys |= {"../../../../escape", "/etc/passwd", "..", ".", "/", "//"}
    for key in keys:
        put(place.store, key, _raw(key))
    assert len(keys) >= 1000
    assert set(tmp_path.iterdir()) == before
    assert not any("escape" in path.name for path in tmp_path.rglob("*"))
    for key in keys:
        assert content_of(place.reader, key) == _raw(key)


def test_an_s3_uri_is_a_bucket_and_a_key() -> None:
    assert parse_uri("s3://b/a/k") == ("b", "a/k")
    assert parse_uri("s3://b") == ("b", "")
    assert parse_uri("s3:///k") is None
    assert parse_uri("https://b/k") is None
