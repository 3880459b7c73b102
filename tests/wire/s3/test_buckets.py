"""Buckets: their names, their places and their owner."""

from typing import Any

import pytest

from clary.testing.wire import TEST_ACCOUNT, connect
from clary.wire.server import WireServer
from s3.harness import BUCKET, get, put, refused, status


def test_buckets_are_made_found_listed_and_deleted(client: Any) -> None:
    client.create_bucket(Bucket="second")
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == [BUCKET, "second"]
    assert client.list_buckets(Prefix="se")["Buckets"][0]["Name"] == "second"
    assert client.head_bucket(Bucket="second")["BucketRegion"] == "us-east-1"
    assert client.get_bucket_location(Bucket="second").get("LocationConstraint") is None
    client.delete_bucket(Bucket="second")
    assert refused("404", client.head_bucket, Bucket="second")["Error"]["Message"] == "Not Found"
    refused("NoSuchBucket", client.list_objects_v2, Bucket="second")
    put(client, "k")
    assert status(refused("BucketNotEmpty", client.delete_bucket, Bucket=BUCKET)) == 409


def test_buckets_are_listed_in_pages(client: Any) -> None:
    for number in range(4):
        client.create_bucket(Bucket=f"more-{number}")
    paginator = client.get_paginator("list_buckets")
    pages = list(paginator.paginate(PaginationConfig={"PageSize": 2}))
    assert [[bucket["Name"] for bucket in page["Buckets"]] for page in pages] == [
        [BUCKET, "more-0"],
        ["more-1", "more-2"],
        ["more-3"],
    ]


def test_the_same_bucket_again_is_the_owners_affair(client: Any, server: WireServer) -> None:
    client.create_bucket(Bucket=BUCKET)
    elsewhere = connect(server, region="eu-west-1").client("s3")
    constraint = {"LocationConstraint": "eu-west-1"}
    elsewhere.create_bucket(Bucket="in-europe", CreateBucketConfiguration=constraint)
    refused(
        "BucketAlreadyOwnedByYou",
        elsewhere.create_bucket,
        Bucket="in-europe",
        CreateBucketConfiguration=constraint,
    )
    assert client.get_bucket_location(Bucket="in-europe")["LocationConstraint"] == "eu-west-1"


@pytest.mark.parametrize(
    ("region", "constraint", "code"),
    [
        ("us-east-1", "us-east-1", "InvalidLocationConstraint"),
        ("us-east-1", "nowhere", "InvalidLocationConstraint"),
        ("eu-west-1", "", "IllegalLocationConstraintException"),
        ("eu-west-1", "us-west-2", "IllegalLocationConstraintException"),
    ],
)
def test_a_location_must_fit_the_endpoint(
    server: WireServer, region: str, constraint: str, code: str
) -> None:
    client = connect(server, region=region).client("s3")
    more = {"CreateBucketConfiguration": {"LocationConstraint": constraint}} if constraint else {}
    refused(code, client.create_bucket, Bucket="somewhere", **more)


@pytest.mark.parametrize(
    "name", ["UPPER", "ab", "a..b", "10.0.0.1", "-a-b", "with_underscore", "xn--abc", "a-s3alias"]
)
def test_names_against_the_rules_are_refused(client: Any, name: str) -> None:
    refused("InvalidBucketName", client.create_bucket, Bucket=name)


def test_somebody_elses_bucket_is_denied(client: Any) -> None:
    put(client, "k")
    other = {"Bucket": BUCKET, "ExpectedBucketOwner": "000000000001"}
    refused("403", client.head_bucket, **other)
    refused("AccessDenied", client.get_object, Key="k", **other)
    refused("AccessDenied", client.put_object, Key="k", Body=b"y", **other)
    assert get(client, "k", ExpectedBucketOwner=TEST_ACCOUNT) == b"x"
