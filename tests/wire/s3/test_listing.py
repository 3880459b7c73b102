"""Listings: pages, prefixes and their edges."""

from typing import Any

from s3.harness import BUCKET, put, refused


def test_pages_of_both_kinds_give_every_key_once_in_order(client: Any) -> None:
    keys = sorted([f"p/{number:02}" for number in range(25)] + ["é", "中", "a b", "p+q"], key=str.encode)
    for key in keys:
        put(client, key)
    for operation in ("list_objects_v2", "list_objects"):
        pages = client.get_paginator(operation).paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 4})
        assert [one["Key"] for page in pages for one in page["Contents"]] == keys


def test_common_prefixes_are_paged_with_the_keys(client: Any) -> None:
    for key in ("a/1", "a/2", "b", "c/1", "d/1", "d/2"):
        put(client, key)
    for operation in ("list_objects_v2", "list_objects"):
        paginator = client.get_paginator(operation)
        for size in (1, 2, 3, 10):
            found = []
            for page in paginator.paginate(Bucket=BUCKET, Delimiter="/", PaginationConfig={"PageSize": size}):
                found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
                found += [one["Key"] for one in page.get("Contents", [])]
            assert sorted(found) == ["a/", "b", "c/", "d/"]
    below = client.list_objects_v2(Bucket=BUCKET, Prefix="d/", Delimiter="/", StartAfter="d/1")
    assert [one["Key"] for one in below["Contents"]] == ["d/2"]
    assert (below["KeyCount"], below["MaxKeys"], below["IsTruncated"]) == (1, 1000, False)


def test_a_listings_edges(client: Any) -> None:
    put(client, "k")
    nothing = client.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)
    assert client.list_objects_v2(Bucket=BUCKET, MaxKeys=5000)["MaxKeys"] == 1000
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, MaxKeys=-1)
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, ContinuationToken="no token")
    refused("InvalidArgument", client.list_objects_v2, Bucket=BUCKET, EncodingType="html")
    owned = client.list_objects_v2(Bucket=BUCKET, FetchOwner=True)["Contents"][0]
    assert len(owned["Owner"]["ID"]) == 64
