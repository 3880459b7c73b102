"""Writes `wire/shapes/`: typed dictionaries for the implemented operations, from botocore's service models.

`python -m clary.wire.generate` writes them, `--check` says which are out of date (exit status 1). To add an operation,
add its name below, run `make shapes` and write its handler.
"""

import argparse
import keyword
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from botocore import model

from clary.wire.models import ServiceModel, ServiceModels

OPERATIONS: dict[str, tuple[str, ...]] = {
    "sagemaker": (
        "AddTags",
        "CreateEndpoint",
        "CreateEndpointConfig",
        "CreateModel",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
        "DeleteTags",
        "DescribeEndpoint",
        "DescribeEndpointConfig",
        "DescribeModel",
        "ListEndpointConfigs",
        "ListEndpoints",
        "ListModels",
        "ListTags",
        "UpdateEndpoint",
        "UpdateEndpointWeightsAndCapacities",
    ),
    "s3": (
        "AbortMultipartUpload",
        "CompleteMultipartUpload",
        "CopyObject",
        "CreateBucket",
        "CreateMultipartUpload",
        "DeleteBucket",
        "DeleteBucketTagging",
        "DeleteObject",
        "DeleteObjectTagging",
        "DeleteObjects",
        "GetBucketAccelerateConfiguration",
        "GetBucketAcl",
        "GetBucketCors",
        "GetBucketEncryption",
        "GetBucketLifecycleConfiguration",
        "GetBucketLocation",
        "GetBucketLogging",
        "GetBucketNotificationConfiguration",
        "GetBucketOwnershipControls",
        "GetBucketPolicy",
        "GetBucketPolicyStatus",
        "GetBucketReplication",
        "GetBucketRequestPayment",
        "GetBucketTagging",
        "GetBucketVersioning",
        "GetBucketWebsite",
        "GetObject",
        "GetObjectAcl",
        "GetObjectAttributes",
        "GetObjectLockConfiguration",
        "GetObjectTagging",
        "GetPublicAccessBlock",
        "HeadBucket",
        "HeadObject",
        "ListBuckets",
        "ListMultipartUploads",
        "ListObjectVersions",
        "ListObjects",
        "ListObjectsV2",
        "ListParts",
        "PutBucketTagging",
        "PutObject",
        "PutObjectTagging",
        "UploadPart",
        "UploadPartCopy",
    ),
    "sts": ("AssumeRole", "GetCallerIdentity", "GetSessionToken"),
    "iam": (
        "AttachRolePolicy",
        "AttachUserPolicy",
        "CreateAccessKey",
        "CreatePolicy",
        "CreatePolicyVersion",
        "CreateRole",
        "CreateUser",
        "DeleteAccessKey",
        "DeletePolicy",
        "DeletePolicyVersion",
        "DeleteRole",
        "DeleteRolePolicy",
        "DeleteUser",
        "DeleteUserPolicy",
        "DetachRolePolicy",
        "DetachUserPolicy",
        "GetPolicy",
        "GetPolicyVersion",
        "GetRole",
        "GetRolePolicy",
        "GetUser",
        "GetUserPolicy",
        "ListAccessKeys",
        "ListAttachedRolePolicies",
        "ListAttachedUserPolicies",
        "ListEntitiesForPolicy",
        "ListGroupsForUser",
        "ListInstanceProfilesForRole",
        "ListPolicies",
        "ListPolicyVersions",
        "ListRolePolicies",
        "ListRoleTags",
        "ListRoles",
        "ListUserPolicies",
        "ListUserTags",
        "ListUsers",
        "PutRolePolicy",
        "PutUserPolicy",
        "SetDefaultPolicyVersion",
        "SimulatePrincipalPolicy",
        "TagRole",
        "TagUser",
        "UntagRole",
        "UntagUser",
        "UpdateAccessKey",
        "UpdateAssumeRolePolicy",
        "UpdateRole",
    ),
    "ecr": ("DescribeImages", "DescribeRepositories", "ListImages"),
    "logs": ("DescribeLogGroups", "DescribeLogStreams", "FilterLogEvents", "GetLogEvents"),
    "cloudwatch": (
        "DeleteAlarms",
        "DescribeAlarmHistory",
        "DescribeAlarms",
        "DescribeAlarmsForMetric",
        "DisableAlarmActions",
        "EnableAlarmActions",
        "GetMetricData",
        "GetMetricStatistics",
        "ListMetrics",
        "ListTagsForResource",
        "PutCompositeAlarm",
        "PutMetricAlarm",
        "PutMetricData",
        "SetAlarmState",
        "TagResource",
        "UntagResource",
    ),
    "sns": (
        "ConfirmSubscription",
        "CreateTopic",
        "DeleteTopic",
        "GetSubscriptionAttributes",
        "GetTopicAttributes",
        "ListSubscriptions",
        "ListSubscriptionsByTopic",
        "ListTagsForResource",
        "ListTopics",
        "Publish",
        "SetSubscriptionAttributes",
        "SetTopicAttributes",
        "Subscribe",
        "TagResource",
        "Unsubscribe",
        "UntagResource",
    ),
    "application-autoscaling": (
        "DeleteScalingPolicy",
        "DeleteScheduledAction",
        "DeregisterScalableTarget",
        "DescribeScalableTargets",
        "DescribeScalingActivities",
        "DescribeScalingPolicies",
        "DescribeScheduledActions",
        "ListTagsForResource",
        "PutScalingPolicy",
        "PutScheduledAction",
        "RegisterScalableTarget",
        "TagResource",
        "UntagResource",
    ),
}

SHAPES = Path(__file__).parent / "shapes"

_PACKAGE_REASON = '"""Generated types of the AWS operations implemented here; one module per service."""\n'

_SCALARS = {
    "string": "str",
    "character": "str",
    "integer": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "boolean": "bool",
    "timestamp": "datetime",
    "blob": "bytes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m clary.wire.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    options = parser.parse_args(arguments)
    stale = [path for path, text in rendered() if not path.is_file() or path.read_text() != text]
    surplus = sorted(set(SHAPES.glob("*.py")) - {path for path, _ in rendered()})
    if options.check:
        for path in [*stale, *surplus]:
            print(f"{path.name} is out of date: run `make shapes`", file=sys.stderr)
        return 1 if stale or surplus else 0
    SHAPES.mkdir(exist_ok=True)
    for path, text in rendered():
        path.write_text(text)
    for path in surplus:
        path.unlink()
    return 0


def rendered() -> Iterator[tuple[Path, str]]:
    """Every generated file with its text."""
    models = ServiceModels({(service, name) for service, names in OPERATIONS.items() for name in names})
    yield SHAPES / "__init__.py", _PACKAGE_REASON
    for service, names in OPERATIONS.items():
        yield SHAPES / f"{service.replace('-', '_')}.py", render(models.service(service), names)


def render(service: ServiceModel, operation_names: Sequence[str]) -> str:
    """The module of one service."""
    classes = _Classes()
    for name in operation_names:
        operation = service.operation(name)
        classes.collect(operation.input_shape, streaming="Readable | bytes")
        classes.collect(operation.output_shape, streaming="Body")
    body = "\n\n".join(text for _, text in sorted(classes.texts.items()))
    return f"{_head(service, body)}\n\n{body}"


class _Classes:
    """The typed dictionaries of a service by name, each rendered once."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def collect(self, shape: model.Shape | None, streaming: str) -> None:
        if shape is None:
            return
        if isinstance(shape, model.ListShape):
            self.collect(shape.member, streaming)
        elif isinstance(shape, model.MapShape):
            self.collect(shape.value, streaming)
        elif isinstance(shape, model.StructureShape) and shape.name not in self.texts:
            self.texts[shape.name] = _render_class(shape, streaming)
            for member in shape.members.values():
                self.collect(member, streaming)


def _render_class(shape: model.StructureShape, streaming: str) -> str:
    members = [
        (name, _member_type(name, member, shape, streaming)) for name, member in sorted(shape.members.items())
    ]
    if any(keyword.iskeyword(name) or not name.isidentifier() for name, _ in members):
        lines = [f'    "{name}": {kind},' for name, kind in members]
        return "\n".join([f'{shape.name} = TypedDict("{shape.name}", {{', *lines, "})", ""])
    lines = [f"    {name}: {kind}" for name, kind in members] or ["    pass"]
    return "\n".join([f"class {shape.name}(TypedDict):", *lines, ""])


def _member_type(name: str, member: model.Shape, owner: model.StructureShape, streaming: str) -> str:
    if member.serialization.get("streaming"):
        kind = streaming
    elif member.serialization.get("eventstream"):
        kind = f"Iterator[{member.name}]"
    else:
        kind = _type_of(member)
    return kind if name in owner.required_members else f"NotRequired[{kind}]"


def _type_of(shape: model.Shape) -> str:
    if isinstance(shape, model.ListShape):
        return f"list[{_type_of(shape.member)}]"
    if isinstance(shape, model.MapShape):
        return f"dict[str, {_type_of(shape.value)}]"
    if isinstance(shape, model.StructureShape):
        return shape.name
    return _SCALARS[shape.type_name]


def _head(service: ServiceModel, body: str) -> str:
    """The opening and the imports that `body` needs."""
    return "\n".join(
        [
            f'"""Types of the implemented {service.name} operations. Generated by `make shapes`: do not edit.',
            "",
            f"API version {service.api_version}, from botocore {version('botocore')}.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *_imports(body),
            "",
        ]
    )


def _imports(body: str) -> Iterator[str]:
    if "Iterator[" in body:
        yield "from collections.abc import Iterator"
    if "datetime" in body:
        yield "from datetime import datetime"
    yield (
        "from typing import NotRequired, TypedDict"
        if "NotRequired[" in body
        else "from typing import TypedDict"
    )
    wire = [name for name, use in (("Body", "[Body]"), ("Readable", "Readable | bytes")) if use in body]
    if wire:
        yield ""
        yield f"from clary.wire.operations import {', '.join(wire)}"


if __name__ == "__main__":
    sys.exit(main())
