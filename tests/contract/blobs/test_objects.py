"""Objects: put, read, replaced, copied, deleted; their tags; all of them cleared."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from blobs.harness import ATTRIBUTES, BUCKET, Place, begin, content_of, put, put_part
from clary.blobs.base import (
    Attributes,
    Checksum,
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
)


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


def test_a_deletion_with_a_condition(place: Place) -> None:
    info = put(place.store, "k", b"x")
    with pytest.raises(PreconditionFailed):
        place.store.delete(BUCKET, "k", if_match="other")
    assert place.store.delete(BUCKET, "k", if_match=info.etag)
    with pytest.raises(NoSuchKey):
        place.store.delete(BUCKET, "k", if_match=info.etag)


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


def test_clear_leaves_an_empty_store_that_works(place: Place) -> None:
    put(place.store, "k", b"x")
    put_part(place.store, begin(place.store), 1, b"y")
    place.store.clear()
    assert place.reader.buckets() == []
    place.store.create_bucket(BUCKET, "us-east-1")
    assert place.reader.objects(BUCKET).objects == ()
    assert place.store.uploads(BUCKET).uploads == ()
