"""The policies of AWS that people attach to roles for SageMaker, as far as they concern what is served here.

Their effect on the services here is that of AWS's; the documents are shorter, for services that are not served are
left out. Others are refused by name when they are attached.
"""

import json
from collections.abc import Mapping

from clary.services.iam.kinds import ManagedPolicy, Version

_PREFIX = "arn:aws:iam::aws:policy"


def find(arn: str) -> ManagedPolicy | None:
    return POLICIES.get(arn)


def _policy(path: str, *statements: Mapping[str, object]) -> ManagedPolicy:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
    return ManagedPolicy(path, (Version(1, json.dumps(document), 0.0),))


def _all(*actions: str) -> ManagedPolicy:
    return _policy("/", {"Action": list(actions), "Resource": "*"})


ADMINISTRATOR = f"{_PREFIX}/AdministratorAccess"

_SAGEMAKER = _policy(
    "/",
    {"Action": ["sagemaker:*", "application-autoscaling:*", "cloudwatch:*", "logs:*"], "Resource": "*"},
    {
        "Action": ["ecr:BatchGetImage", "ecr:Describe*", "ecr:GetAuthorizationToken", "ecr:ListImages"],
        "Resource": "*",
    },
    {"Action": ["iam:GetRole", "iam:ListRoles"], "Resource": "*"},
    {
        "Action": ["s3:CreateBucket", "s3:GetBucketLocation", "s3:ListAllMyBuckets", "s3:ListBucket"],
        "Resource": "*",
    },
    {
        "Action": ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        "Resource": [
            f"arn:aws:s3:::*{word}*" for word in ("SageMaker", "Sagemaker", "sagemaker", "aws-glue")
        ],
    },
    {
        "Action": "iam:PassRole",
        "Resource": "arn:aws:iam::*:role/*AmazonSageMaker*",
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    },
    {
        "Action": "iam:PassRole",
        "Resource": "arn:aws:iam::*:role/*",
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    },
)

POLICIES: Mapping[str, ManagedPolicy] = {
    ADMINISTRATOR: _all("*"),
    f"{_PREFIX}/PowerUserAccess": _policy(
        "/",
        {"NotAction": ["iam:*", "organizations:*", "account:*"], "Resource": "*"},
        {"Action": ["iam:ListRoles"], "Resource": "*"},
    ),
    f"{_PREFIX}/AmazonSageMakerFullAccess": _SAGEMAKER,
    f"{_PREFIX}/AmazonSageMakerReadOnly": _all(
        "sagemaker:Describe*",
        "sagemaker:List*",
        "sagemaker:BatchGetMetrics",
        "sagemaker:Get*",
        "sagemaker:Search",
    ),
    f"{_PREFIX}/AmazonS3FullAccess": _all("s3:*"),
    f"{_PREFIX}/AmazonS3ReadOnlyAccess": _all("s3:Get*", "s3:List*", "s3:Describe*"),
    f"{_PREFIX}/CloudWatchFullAccess": _all("cloudwatch:*", "logs:*"),
    f"{_PREFIX}/CloudWatchLogsFullAccess": _all("logs:*"),
    f"{_PREFIX}/CloudWatchReadOnlyAccess": _all(
        "cloudwatch:Describe*",
        "cloudwatch:Get*",
        "cloudwatch:List*",
        "logs:Get*",
        "logs:Describe*",
        "logs:Filter*",
    ),
    f"{_PREFIX}/IAMFullAccess": _all("iam:*"),
    f"{_PREFIX}/IAMReadOnlyAccess": _all("iam:Get*", "iam:List*", "iam:Simulate*"),
    f"{_PREFIX}/AmazonEC2ContainerRegistryReadOnly": _all(
        "ecr:GetAuthorizationToken", "ecr:Describe*", "ecr:ListImages", "ecr:BatchGetImage"
    ),
    f"{_PREFIX}/AmazonEC2ContainerRegistryFullAccess": _all("ecr:*"),
}
