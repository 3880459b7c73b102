"""Whether the caller of an operation may call it: which actions on which resources a call is, and the check.

It runs before any handler, for everybody but the root key. An operation's action has its name, but for S3, whose
actions are older than its operations; its resource is the one that the call names, or `*`. Creating something with
tags also needs the right to tag, and handing over a role the right to pass it.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from clary.domain.alarms import alarm_arn
from clary.domain.arns import parse_arn, sagemaker_arn
from clary.domain.notices import topic_arn
from clary.domain.policies import Request
from clary.domain.rights import Rights, caller_context, knows
from clary.services.resource_names import IAM_MEMBERS, SAGEMAKER_MEMBERS
from clary.wire.operations import Call

FREE = frozenset(
    (
        ("sts", "AssumeRole"),  # its handler asks both sides
        ("sts", "GetCallerIdentity"),
        ("sts", "GetSessionToken"),
        ("clary", "GetHealth"),
    )
)
"""What needs no permission."""

_PREFIXES = {"sagemaker-runtime": "sagemaker"}


class Need(NamedTuple):
    """One right that a call needs."""

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = {}


class Authorization:
    """Asks the rights in force."""

    def __init__(self, rights: Callable[[], Rights], now: Callable[[], datetime]) -> None:
        self._rights = rights
        self._now = now

    def check(self, call: Call, params: Mapping[str, Any]) -> None:
        """Raises the fault that says the caller may not."""
        principal = call.principal
        if principal.is_root or (call.service, call.operation) in FREE:
            return
        rights = self._rights()
        context = caller_context(principal, call.region, self._now())
        for need in needs(call, params, rights):
            rights.check(principal, Request(need.action, need.resource, {**context, **need.context}, knows))


def needs(call: Call, params: Mapping[str, Any], rights: Rights) -> Iterator[Need]:
    """The rights that a call needs. `rights` tell the ARNs of users and roles, whose paths calls leave out."""
    if call.service == "s3":
        yield from _s3_needs(call, params)
        return
    prefix = _PREFIXES.get(call.service, call.service)
    if call.service == "cloudwatch" and "AlarmNames" in params and call.operation != "DescribeAlarms":
        for name in params["AlarmNames"]:
            yield Need(f"{prefix}:{call.operation}", alarm_arn(call.region, call.account, name))
        return
    resource = _resource(call, params, rights)
    tags = _tag_context(params)
    yield Need(f"{prefix}:{call.operation}", resource, tags)
    if call.service == "sagemaker":
        if params.get("Tags") and call.operation.startswith("Create"):
            yield Need("sagemaker:AddTags", resource, tags)
        for member in ("ExecutionRoleArn", "RoleArn"):
            if member in params:
                passed = {"iam:passedtoservice": ("sagemaker.amazonaws.com",)}
                yield Need("iam:PassRole", str(params[member]), passed)


def _resource(call: Call, params: Mapping[str, Any], rights: Rights) -> str:
    if call.operation.startswith("List") and call.service != "iam":
        return "*"
    if call.service == "sagemaker":
        return _sagemaker_resource(call, params)
    if call.service == "iam":
        return _iam_resource(call, params, rights)
    if call.service == "logs":
        group = params.get("logGroupName") or params.get("logGroupIdentifier")
        return f"arn:aws:logs:{call.region}:{call.account}:log-group:{group}:*" if group else "*"
    if call.service == "ecr" and "repositoryName" in params:
        registry = params.get("registryId", call.account)
        return f"arn:aws:ecr:{call.region}:{registry}:repository/{params['repositoryName']}"
    if call.service == "cloudwatch":
        name = params.get("AlarmName")
        return str(params.get("ResourceARN") or (alarm_arn(call.region, call.account, name) if name else "*"))
    if call.service == "sns":
        return _sns_resource(call, params)
    return "*"


def _sns_resource(call: Call, params: Mapping[str, Any]) -> str:
    """The topic: also of a subscription, whose ARN is the topic's with an id behind it."""
    if "Name" in params:
        return topic_arn(call.region, call.account, str(params["Name"]))
    for member in ("TopicArn", "TargetArn", "ResourceArn", "SubscriptionArn"):
        if member in params:
            return ":".join(str(params[member]).split(":")[:6])
    return "*"


def _sagemaker_resource(call: Call, params: Mapping[str, Any]) -> str:
    if "ResourceArn" in params:
        return str(params["ResourceArn"])
    kind = next((k for k in SAGEMAKER_MEMBERS if call.operation.endswith(k.operation_suffix)), None)
    if kind is None or kind.member not in params:
        return "*"
    return sagemaker_arn(call.region, call.account, kind.word, str(params[kind.member]))


def _iam_resource(call: Call, params: Mapping[str, Any], rights: Rights) -> str:
    for member in ("PolicySourceArn", "PolicyArn"):
        # Attaching is a right on the user or role, which is looked at below.
        if member in params and "RoleName" not in params and "UserName" not in params:
            return str(params[member])
    path = str(params.get("Path", "/"))
    for member, word in IAM_MEMBERS:
        if member in params and not (member == "PolicyName" and call.operation != "CreatePolicy"):
            name = str(params[member])
            return rights.find(word, name) or f"arn:aws:iam::{call.account}:{word}{path}{name}"
    if call.operation in _OF_ONESELF and call.principal.name:
        return call.principal.arn
    return "*"


_OF_ONESELF = frozenset(
    ("GetUser", "CreateAccessKey", "ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey")
)


def _tag_context(params: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    tags = params.get("Tags")
    if not isinstance(tags, list) or not all(isinstance(tag, dict) and "Key" in tag for tag in tags):
        return {}
    context = {f"aws:requesttag/{tag['Key'].lower()}": (str(tag.get("Value", "")),) for tag in tags}
    return {**context, "aws:tagkeys": tuple(tag["Key"] for tag in tags)}


# S3's actions that are not called as their operations; about the object where a call names one.
_S3_OBJECT = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "GetObjectAttributes": "GetObject",
    "HeadObject": "GetObject",
    "ListParts": "ListMultipartUploadParts",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
_S3_BUCKET = {
    "DeleteBucketTagging": "PutBucketTagging",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
}


def _s3_needs(call: Call, params: Mapping[str, Any]) -> Iterator[Need]:
    if call.operation == "ListBuckets":
        yield Need("s3:ListAllMyBuckets", "*")
        return
    bucket = f"arn:aws:s3:::{params.get('Bucket', '')}"
    if call.operation == "DeleteObjects":
        for item in params.get("Delete", {}).get("Objects", []):
            yield Need("s3:DeleteObject", f"{bucket}/{item['Key']}")
        return
    if call.operation in ("CopyObject", "UploadPartCopy"):
        yield Need("s3:GetObject", _copy_source(params.get("CopySource", "")))
    if "Key" in params:
        yield Need(f"s3:{_S3_OBJECT.get(call.operation, call.operation)}", f"{bucket}/{params['Key']}")
        return
    action = _S3_BUCKET.get(call.operation, call.operation)
    context = {
        key: (str(params[member]),)
        for key, member in (
            ("s3:prefix", "Prefix"),
            ("s3:delimiter", "Delimiter"),
            ("s3:max-keys", "MaxKeys"),
        )
        if member in params
    }
    yield Need(f"s3:{action}", bucket, context)


def _copy_source(source: object) -> str:
    """The object that is copied, from any of the forms that clients write it in."""
    text = unquote(str(source).partition("?versionId=")[0])
    parsed = parse_arn(text)
    return str(parsed) if parsed is not None else f"arn:aws:s3:::{text.lstrip('/')}"
