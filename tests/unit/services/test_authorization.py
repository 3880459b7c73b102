"""Which rights a call needs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from clary.domain.principals import assumed_role
from clary.domain.rights import Access, Rights
from clary.services.authorization import Need, needs
from clary.wire.generate import OPERATIONS
from clary.wire.operations import Call

ACCOUNT = "123456789012"
BOSS = f"arn:aws:iam::{ACCOUNT}:user/admins/boss"
RIGHTS = Rights.from_accesses([Access(BOSS)])


def needed(service: str, operation: str, **params: Any) -> list[Need]:
    principal = assumed_role(ACCOUNT, "r", "s", "ASIA")
    call = Call(service, operation, ACCOUNT, "eu-central-1", principal, "id", datetime.now(UTC))
    return list(needs(call, params, RIGHTS))


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        ("sagemaker", "CreateEndpointConfig", {"EndpointConfigName": "C"}, ["endpoint-config/c"]),
        ("sagemaker", "UpdateEndpointWeightsAndCapacities", {"EndpointName": "E"}, ["endpoint/e"]),
        ("sagemaker", "UpdateEndpoint", {"EndpointName": "E", "EndpointConfigName": "C"}, ["endpoint/e"]),
        ("sagemaker", "DescribeModel", {"ModelName": "m"}, ["model/m"]),
    ],
)
def test_I01_sagemaker_s_resources(service: str, operation: str, params: Any, expected: list[str]) -> None:
    prefix = f"arn:aws:sagemaker:eu-central-1:{ACCOUNT}:"
    found = needed(service, operation, **params)
    assert [need.resource for need in found] == [prefix + word for word in expected]
    assert [need.action for need in found] == [f"{service}:{operation}"]


def test_I01_tags_and_roles_need_rights_of_their_own() -> None:
    tags = [{"Key": "Team", "Value": "a"}]
    found = needed("sagemaker", "CreateModel", ModelName="m", ExecutionRoleArn="arn:r", Tags=tags)
    assert [need.action for need in found] == ["sagemaker:CreateModel", "sagemaker:AddTags", "iam:PassRole"]
    assert found[0].context == {"aws:requesttag/team": ("a",), "aws:tagkeys": ("Team",)}
    assert (found[2].resource, found[2].context) == (
        "arn:r",
        {"iam:passedtoservice": ("sagemaker.amazonaws.com",)},
    )


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        ("cloudwatch", "PutMetricAlarm", {"AlarmName": "A b"}, ["alarm:A b"]),
        ("cloudwatch", "SetAlarmState", {"AlarmName": "a"}, ["alarm:a"]),
        ("cloudwatch", "DeleteAlarms", {"AlarmNames": ["a", "b"]}, ["alarm:a", "alarm:b"]),
        ("sns", "CreateTopic", {"Name": "t"}, ["t"]),
        ("sns", "Publish", {"TopicArn": f"arn:aws:sns:eu-central-1:{ACCOUNT}:t"}, ["t"]),
        ("sns", "Unsubscribe", {"SubscriptionArn": f"arn:aws:sns:eu-central-1:{ACCOUNT}:t:id"}, ["t"]),
    ],
)
def test_I01_alarms_and_topics_are_resources(
    service: str, operation: str, params: Any, expected: list[str]
) -> None:
    found = needed(service, operation, **params)
    prefix = f"arn:aws:{service}:eu-central-1:{ACCOUNT}:"
    assert [(need.action, need.resource) for need in found] == [
        (f"{service}:{operation}", prefix + word) for word in expected
    ]
    assert needed("cloudwatch", "DescribeAlarms", AlarmNames=["a"])[0].resource == "*"


def test_I01_lists_concern_everything() -> None:
    assert needed("sagemaker", "ListEndpoints", NameContains="x") == [
        Need("sagemaker:ListEndpoints", "*", {})
    ]


def test_I01_no_operation_of_sagemaker_s_goes_unnamed() -> None:
    """A right on one resource would not cover it, and worse, a denial would not either."""
    for operation in OPERATIONS["sagemaker"]:
        if not operation.startswith("List"):
            members = ("EndpointName", "EndpointConfigName", "ModelName", "ResourceArn")
            resources = {needed("sagemaker", operation, **{member: "x"})[0].resource for member in members}
            assert resources != {"*"}, f"{operation}: name its resource in services/resource_names.py"


@pytest.mark.parametrize(
    ("operation", "params", "expected"),
    [
        ("GetObject", {"Key": "k"}, [("s3:GetObject", "b/k")]),
        ("HeadObject", {"Key": "k"}, [("s3:GetObject", "b/k")]),
        ("UploadPart", {"Key": "k"}, [("s3:PutObject", "b/k")]),
        ("HeadBucket", {}, [("s3:ListBucket", "b")]),
        ("ListObjectsV2", {"Prefix": "p/"}, [("s3:ListBucket", "b")]),
        ("CreateBucket", {}, [("s3:CreateBucket", "b")]),
        ("CopyObject", {"Key": "k", "CopySource": "/c/a%20b"}, [("s3:GetObject", "c/a b"), ("s3:PutObject", "b/k")]),
        (
            "DeleteObjects",
            {"Delete": {"Objects": [{"Key": "x"}, {"Key": "y"}]}},
            [("s3:DeleteObject", "b/x"), ("s3:DeleteObject", "b/y")],
        ),
    ],
)  # fmt: skip
def test_I01_s3_s_actions_are_older_than_its_operations(
    operation: str, params: Any, expected: list[tuple[str, str]]
) -> None:
    found = [(need.action, need.resource) for need in needed("s3", operation, Bucket="b", **params)]
    assert found == [(action, f"arn:aws:s3:::{resource}") for action, resource in expected]


def test_I01_what_names_an_object_is_about_it() -> None:
    for operation in set(OPERATIONS["s3"]) - {"ListBuckets", "DeleteObjects"}:
        found = needed("s3", operation, Bucket="b", Key="k", CopySource="b/k")
        assert {need.resource for need in found} == {"arn:aws:s3:::b/k"}


def test_I01_users_are_found_whatever_their_path_and_case() -> None:
    assert needed("iam", "DeleteUser", UserName="Boss")[0].resource == BOSS
    assert needed("iam", "AttachUserPolicy", UserName="boss", PolicyArn="arn:p")[0].resource == BOSS
    new = needed("iam", "CreateRole", RoleName="r", Path="/p/")[0].resource
    assert new == f"arn:aws:iam::{ACCOUNT}:role/p/r"
    assert needed("iam", "GetPolicy", PolicyArn="arn:p")[0].resource == "arn:p"
