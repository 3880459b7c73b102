"""Buckets and their tags."""

from collections.abc import Callable

import pytest

from blobs.harness import BUCKET, Place, begin, put, put_part
from clary.blobs.base import (
    BucketExists,
    BucketNotEmpty,
    NoSuchBucket,
    NoSuchUpload,
    UploadInfo,
)


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


def test_a_buckets_tags_go_with_it(place: Place) -> None:
    assert place.store.bucket_tags(BUCKET) == {}
    place.store.set_bucket_tags(BUCKET, {"a": "1"})
    assert place.store.bucket_tags(BUCKET) == {"a": "1"}
    place.store.delete_bucket(BUCKET)
    with pytest.raises(NoSuchBucket):
        place.store.bucket_tags(BUCKET)
    place.store.create_bucket(BUCKET, "us-east-1")
    assert place.store.bucket_tags(BUCKET) == {}
