"""What every blob store promises (`clary.blobs.base`), over each of them."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.blobs.base import (
    Attributes,
    BlobReader,
    BlobStore,
    BucketExists,
    BucketNotEmpty,
    Checksum,
    NoSuchBucket,
    NoSuchKey,
    NoSuchPart,
    NoSuchUpload,
    ObjectInfo,
    PartInfo,
    PreconditionFailed,
    UploadInfo,
    parse_uri,
)
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.clock import FakeClock

BUCKET = "bucket"
ATTRIBUTES = Attributes({"content-type": "text/csv"}, {"colour": "red", "größe": "10"})


class Place(NamedTuple):
    """A store and another one that only reads the same objects."""

    store: BlobStore
    reader: BlobReader
    clock: FakeClock


def _filesystem(root: Path) -> Place:
    clock = FakeClock()
    return Place(FilesystemBlobs(root, clock, sync=False), FilesystemBlobs(root, read_only=True), clock)


STORES: dict[str, Callable[[Path], Place]] = {"filesystem": _filesystem}


@pytest.fixture(params=sorted(STORES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = STORES[request.param](tmp_path / "objects")
    place.store.create_bucket(BUCKET, "eu-west-1")
    yield place
    place.store.close()
    place.reader.close()  # type: ignore[attr-defined]


def put(
    store: BlobStore,
    key: str,
    content: bytes = b"",
    *,
    bucket: str = BUCKET,
    attributes: Attributes = ATTRIBUTES,
    checksum: Checksum | None = None,
    if_absent: bool = False,
    if_match: str | None = None,
) -> ObjectInfo:
    with store.stage() as staged:
        staged.write(content)
        return store.put(
            bucket,
            key,
            staged,
            etag=hashlib.md5(content).hexdigest(),
            attributes=attributes,
            checksum=checksum,
            if_absent=if_absent,
            if_match=if_match,
        )


def content_of(reader: BlobReader, key: str, bucket: str = BUCKET) -> bytes:
    with reader.open(bucket, key) as opened:
        return b"".join(iter(lambda: opened.read(7), b""))


def begin(store: BlobStore, key: str = "big", bucket: str = BUCKET) -> UploadInfo:
    return store.create_upload(
        bucket,
        key,
        ATTRIBUTES,
        checksum_algorithm="CRC32",
        checksum_type="COMPOSITE",
        checksum_asked=True,
    )


def put_part(store: BlobStore, upload: UploadInfo, number: int, content: bytes) -> PartInfo:
    with store.stage() as staged:
        staged.write(content)
        return store.put_part(upload, number, staged, etag=hashlib.md5(content).hexdigest())


# Buckets


def test_a_bucket_is_made_once_and_found_by_every_reader(place: Place) -> None:
    with pytest.raises(BucketExists):
        place.store.create_bucket(BUCKET, "us-east-1")
    found = place.reader.bucket(BUCKET)
    assert (found.name, found.region, found.created_at) == (BUCKET, "eu-west-1", place.clock.now())
    assert place.reader.buckets() == [found]


def test_buckets_are_listed_by_name(place: Place) -> None:
    for name in ("zz", "aa", "mm"):
        place.store.create_bucket(name, "us-east-1")
    assert [bucket.name for bucket in place.reader.buckets()] == ["aa", BUCKET, "mm", "zz"]


def test_only_an_empty_bucket_is_deleted_and_its_uploads_go_with_it(place: Place) -> None:
    put(place.store, "k")
    upload = begin(place.store)
    put_part(place.store, upload, 1, b"x")
    with pytest.raises(BucketNotEmpty):
        place.store.delete_bucket(BUCKET)
    place.store.delete(BUCKET, "k")
    place.store.delete_bucket(BUCKET)
    assert place.reader.buckets() == []
    place.store.create_bucket(BUCKET, "us-east-1")
    with pytest.raises(NoSuchUpload):
        place.store.upload(BUCKET, upload.key, upload.upload_id)


def test_nothing_works_in_a_bucket_that_is_not_there(place: Place) -> None:
    store = place.store
    upload = begin(store)
    gone = UploadInfo(upload_id=upload.upload_id, bucket="none", key="k", started_at=upload.started_at)
    calls: list[Callable[[], object]] = [
        lambda: store.bucket("none"),
        lambda: store.delete_bucket("none"),
        lambda: store.head("none", "k"),
        lambda: store.open("none", "k"),
        lambda: store.objects("none"),
        lambda: store.uploads("none"),
        lambda: store.delete("none", "k"),
        lambda: store.delete_many("none", ["k"]),
        lambda: put(store, "k", bucket="none"),
        lambda: begin(store, bucket="none"),
        lambda: store.abort("none", "k", "u"),
        lambda: store.upload("none", "k", "u"),
        lambda: store.parts(gone),
        lambda: put_part(store, gone, 1, b""),
        lambda: store.complete(gone, [], etag="e"),
    ]
    for call in calls:
        with pytest.raises(NoSuchBucket):
            call()


# Objects


def test_an_object_comes_back_as_it_was_put(place: Place) -> None:
    checksum = Checksum("SHA256", "abc=", "FULL_OBJECT")
    info = put(place.store, "a/b", b"hello", checksum=checksum)
    assert (info.size, info.etag, info.checksum) == (5, hashlib.md5(b"hello").hexdigest(), checksum)
    assert info.attributes == ATTRIBUTES
    assert info.modified_at == place.clock.now()
    assert place.reader.head(BUCKET, "a/b") == info
    assert content_of(place.reader, "a/b") == b"hello"


def test_an_open_object_can_be_read_from_anywhere_and_as_a_file(place: Place) -> None:
    put(place.store, "k", b"0123456789")
    with place.reader.open(BUCKET, "k") as opened:
        opened.seek(6)
        assert opened.read(100) == b"6789"
        assert Path(opened.path).read_bytes() == b"0123456789"


def test_an_open_object_outlives_its_replacement_and_its_deletion(place: Place) -> None:
    put(place.store, "k", b"old")
    with place.reader.open(BUCKET, "k") as opened:
        put(place.store, "k", b"newer")
        place.store.delete(BUCKET, "k")
        assert opened.read(100) == b"old"
        assert Path(opened.path).read_bytes() == b"old"


def test_a_put_replaces_wholly(place: Place) -> None:
    put(place.store, "k", b"old", checksum=Checksum("CRC32", "AAAAAA=="))
    put(place.store, "k", b"new", attributes=Attributes())
    info = place.reader.head(BUCKET, "k")
    assert (info.size, info.checksum, info.attributes) == (3, None, Attributes())
    assert content_of(place.reader, "k") == b"new"


def test_what_is_staged_and_not_put_leaves_nothing(place: Place) -> None:
    with place.store.stage() as staged:
        staged.write(b"half")
        assert staged.size == 4
    assert place.reader.objects(BUCKET).objects == ()


def test_a_missing_key_is_no_such_key_and_deleting_it_no_error(place: Place) -> None:
    for call in (place.reader.head, place.reader.open):
        with pytest.raises(NoSuchKey):
            call(BUCKET, "none")
    assert place.store.delete(BUCKET, "none") is False
    put(place.store, "k")
    assert place.store.delete(BUCKET, "k") is True
    with pytest.raises(NoSuchKey):
        place.reader.head(BUCKET, "k")


def test_many_are_deleted_in_one_step(place: Place) -> None:
    for number in range(5):
        put(place.store, f"k{number}")
    place.store.delete_many(BUCKET, ["k0", "none", "k3", "k3"])
    assert [info.key for info in place.reader.objects(BUCKET).objects] == ["k1", "k2", "k4"]


def test_conditions_hold_or_the_object_stays(place: Place) -> None:
    first = put(place.store, "k", b"1", if_absent=True)
    with pytest.raises(PreconditionFailed):
        put(place.store, "k", b"2", if_absent=True)
    with pytest.raises(PreconditionFailed):
        put(place.store, "k", b"2", if_match="other")
    with pytest.raises(NoSuchKey):
        put(place.store, "none", b"2", if_match=first.etag)
    assert content_of(place.reader, "k") == b"1"
    put(place.store, "k", b"2", if_match=first.etag)
    assert content_of(place.reader, "k") == b"2"


def test_a_copy_has_the_payload_and_its_own_attributes(place: Place) -> None:
    source = put(place.store, "k", b"payload", checksum=Checksum("CRC32", "AAAAAA=="))
    place.clock.advance(10)
    with place.store.open(BUCKET, "k") as opened:
        copy = place.store.copy(opened, BUCKET, "copy", attributes=Attributes())
    place.store.delete(BUCKET, "k")
    assert (copy.etag, copy.checksum, copy.attributes) == (source.etag, source.checksum, Attributes())
    assert copy.modified_at == place.clock.now()
    assert content_of(place.reader, "copy") == b"payload"


def test_a_copy_onto_itself_and_of_what_is_gone_meanwhile(place: Place) -> None:
    put(place.store, "k", b"payload")
    with place.store.open(BUCKET, "k") as opened:
        place.store.copy(opened, BUCKET, "k", attributes=Attributes())
        place.store.delete(BUCKET, "k")
        place.store.copy(opened, BUCKET, "k", attributes=ATTRIBUTES)
        with pytest.raises(PreconditionFailed):
            place.store.copy(opened, BUCKET, "k", attributes=ATTRIBUTES, if_absent=True)
    assert content_of(place.reader, "k") == b"payload"


# Listing

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


# Uploads in parts


def test_parts_in_any_order_make_one_object(place: Place) -> None:
    upload = begin(place.store)
    parts = {number: put_part(place.store, upload, number, bytes([number]) * 1000) for number in (3, 1, 2)}
    put_part(place.store, upload, 9, b"left out")
    chosen = [parts[1], parts[2], parts[3]]
    info = place.store.complete(upload, chosen, etag="e-3", checksum=Checksum("CRC32", "x-3", "COMPOSITE"))
    assert (info.size, info.parts, info.etag, info.upload_id) == (3000, (1000,) * 3, "e-3", upload.upload_id)
    assert info.attributes == ATTRIBUTES
    assert place.reader.head(BUCKET, "big") == info
    assert content_of(place.reader, "big") == b"\1" * 1000 + b"\2" * 1000 + b"\3" * 1000
    with pytest.raises(NoSuchUpload):
        place.store.complete(upload, chosen, etag="e-3")
    assert place.store.uploads(BUCKET).uploads == ()


def test_a_part_may_be_uploaded_anew_until_the_end(place: Place) -> None:
    upload = begin(place.store)
    old = put_part(place.store, upload, 1, b"old")
    new = put_part(place.store, upload, 1, b"newer")
    assert list(place.store.parts(upload)) == [new]
    with pytest.raises(NoSuchPart):
        place.store.complete(upload, [old], etag="e")
    place.store.complete(upload, [new], etag="e")
    assert content_of(place.reader, "big") == b"newer"


def test_parts_are_listed_by_number_in_pages(place: Place) -> None:
    upload = begin(place.store)
    for number in (5, 1, 3, 10_000):
        put_part(place.store, upload, number, b"x" * number)
    assert [part.number for part in place.store.parts(upload)] == [1, 3, 5, 10_000]
    assert [part.number for part in place.store.parts(upload, after=1, limit=2)] == [3, 5]


def test_an_aborted_upload_is_gone(place: Place) -> None:
    upload = begin(place.store)
    part = put_part(place.store, upload, 1, b"x")
    place.store.abort(BUCKET, "big", upload.upload_id)
    calls: list[Callable[[], object]] = [
        lambda: place.store.abort(BUCKET, "big", upload.upload_id),
        lambda: put_part(place.store, upload, 2, b"x"),
        lambda: place.store.parts(upload),
        lambda: place.store.complete(upload, [part], etag="e"),
    ]
    for call in calls:
        with pytest.raises(NoSuchUpload):
            call()


def test_an_upload_belongs_to_its_key(place: Place) -> None:
    upload = begin(place.store)
    assert place.store.upload(BUCKET, "big", upload.upload_id) == upload
    with pytest.raises(NoSuchUpload):
        place.store.upload(BUCKET, "other", upload.upload_id)


def test_conditions_hold_when_an_upload_completes(place: Place) -> None:
    upload = begin(place.store)
    part = put_part(place.store, upload, 1, b"x")
    put(place.store, "big", b"there")
    with pytest.raises(PreconditionFailed):
        place.store.complete(upload, [part], etag="e", if_absent=True)
    assert content_of(place.reader, "big") == b"there"
    place.store.complete(upload, [part], etag="e")
    assert content_of(place.reader, "big") == b"x"


def test_uploads_are_listed_by_key_and_age_with_delimiter_and_pages(place: Place) -> None:
    begun = []
    for key in ("a/1", "b", "a/2", "b", "c"):
        place.clock.advance(1)
        begun.append(begin(place.store, key))
    everything = [begun[0], begun[2], begun[1], begun[3], begun[4]]
    assert list(place.store.uploads(BUCKET).uploads) == everything
    found: list[UploadInfo] = []
    after = ("", "")
    while True:
        page = place.store.uploads(BUCKET, start_after=after, limit=1)
        found += page.uploads
        if page.next is None:
            break
        after = page.next
    assert found == everything
    rolled = place.store.uploads(BUCKET, delimiter="/", limit=2)
    assert (rolled.prefixes, rolled.uploads, rolled.next) == (("a/",), (begun[1],), ("b", begun[1].upload_id))
    assert place.store.uploads(BUCKET, start_after=("b", "")).uploads == (begun[4],)
    assert place.store.uploads(BUCKET, prefix="a/").uploads == (begun[0], begun[2])


def test_only_old_uploads_are_ended(place: Place) -> None:
    begin(place.store, "old")
    place.clock.advance(timedelta(days=7).total_seconds())
    young = begin(place.store, "young")
    place.clock.advance(1)
    assert place.store.abort_older(timedelta(days=7)) == 1
    assert place.store.uploads(BUCKET).uploads == (young,)


def test_clear_leaves_an_empty_store_that_works(place: Place) -> None:
    put(place.store, "k", b"x")
    put_part(place.store, begin(place.store), 1, b"y")
    place.store.clear()
    assert place.reader.buckets() == []
    place.store.create_bucket(BUCKET, "us-east-1")
    assert place.reader.objects(BUCKET).objects == ()
    assert place.store.uploads(BUCKET).uploads == ()


def test_an_s3_uri_is_a_bucket_and_a_key() -> None:
    assert parse_uri("s3://b/a/k") == ("b", "a/k")
    assert parse_uri("s3://b") == ("b", "")
    assert parse_uri("s3:///k") is None
    assert parse_uri("https://b/k") is None


# Tags


def test_tags_are_set_replaced_and_leave_the_object_as_it_was(place: Place) -> None:
    before = put(place.store, "k", b"x", attributes=replace(ATTRIBUTES, tags={"a": "1"}))
    assert place.reader.head(BUCKET, "k").attributes.tags == {"a": "1"}
    place.store.set_tags(BUCKET, "k", {"b": "2"})
    after = place.reader.head(BUCKET, "k")
    assert after == replace(before, attributes=replace(ATTRIBUTES, tags={"b": "2"}))
    assert content_of(place.reader, "k") == b"x"
    with pytest.raises(NoSuchKey):
        place.store.set_tags(BUCKET, "none", {})
    with pytest.raises(NoSuchBucket):
        place.store.set_tags("none", "k", {})


def test_a_buckets_tags_go_with_it(place: Place) -> None:
    assert place.store.bucket_tags(BUCKET) == {}
    place.store.set_bucket_tags(BUCKET, {"a": "1"})
    assert place.store.bucket_tags(BUCKET) == {"a": "1"}
    place.store.delete_bucket(BUCKET)
    with pytest.raises(NoSuchBucket):
        place.store.bucket_tags(BUCKET)
    place.store.create_bucket(BUCKET, "us-east-1")
    assert place.store.bucket_tags(BUCKET) == {}


def test_a_deletion_with_a_condition(place: Place) -> None:
    info = put(place.store, "k", b"x")
    with pytest.raises(PreconditionFailed):
        place.store.delete(BUCKET, "k", if_match="other")
    assert place.store.delete(BUCKET, "k", if_match=info.etag)
    with pytest.raises(NoSuchKey):
        place.store.delete(BUCKET, "k", if_match=info.etag)
