"""Uploads in parts."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from blobs.harness import ATTRIBUTES, BUCKET, Place, begin, content_of, put, put_part
from clary.blobs.base import (
    Checksum,
    NoSuchPart,
    NoSuchUpload,
    PreconditionFailed,
    UploadInfo,
)


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
