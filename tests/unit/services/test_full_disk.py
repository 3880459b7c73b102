"""A disk that is full and stays so: every deletion of every service goes through, and counts.

The whole of control answers, put together as it is in a server. What is deleted is made first, while there is room;
then nothing can be written but over what is held back for this, and everything is deleted by its operation.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from clary import credentials
from clary.domain.clock import SystemClock
from clary.domain.resources import ENDPOINT
from clary.links import identities
from clary.main import Control, operation_names
from clary.settings import Settings
from clary.testing.wire import connect
from clary.wire import validate
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from failing_disk import FailingDisk

ACCOUNT, REGION, BUCKET = "123456789012", "us-east-1", "bucket"
DELETIONS = ("Abort", "Delete", "Deregister", "Detach", "Remove", "Unsubscribe", "Untag")
IMAGE = f"683313688378.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:1.7-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/SageMakerExecutionRole"
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/all",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
POLICY_ARN, OTHER_POLICY_ARN = (f"arn:aws:iam::{ACCOUNT}:policy/{name}" for name in ("p", "other"))
DOCUMENT = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
    '"Principal": {"Service": "sagemaker.amazonaws.com"}}]}'
)
TAGS = [{"Key": "k", "Value": "v"}]


class World:
    """Control without processes, and a client of every service it answers."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(data_dir=root / "data", cache_dir=root / "cache")
        for directory in (self.settings.run_dir, self.settings.keys_dir):
            directory.mkdir(parents=True)
        credentials.ensure(self.settings)
        self.control = Control(self.settings, SystemClock())
        table = self.control.table()
        self.server = WireServer(
            self.control._models,
            table,
            validate=validate.validate,
            keys=Verifier(self.control._keys),
            clock=SystemClock(),
            new_request_id=lambda: "r",
        )
        self.control._identities.apply()
        self._clients = connect(self.server, keyring=self.control._keys, credentials=self.control._keys.root)
        self._by_service: dict[str, Any] = {}

    def call(self, service: str, operation: str, **params: Any) -> Any:
        client = self._by_service.setdefault(service, None) or self._clients.client(service)
        self._by_service[service] = client
        method = next(name for name, each in client.meta.method_to_api_mapping.items() if each == operation)
        return getattr(client, method)(**params)

    def close(self) -> None:
        self.server.close()
        self.control._close()
        for part in (self.control._metrics, self.control._blobs, self.control._store):
            part.close()


@pytest.fixture
def world(root: Path, disk: FailingDisk) -> Iterator[World]:
    world = World(root)
    yield world
    world.close()


def make(world: World) -> Mapping[str, str]:
    """One of everything that can be deleted; the names that the server gave."""
    call = world.call
    call("s3", "CreateBucket", Bucket=BUCKET)
    call("s3", "CreateBucket", Bucket="empty")
    call("s3", "PutBucketTagging", Bucket=BUCKET, Tagging={"TagSet": TAGS})
    for key in ("kept", "one", "two", "three"):
        call("s3", "PutObject", Bucket=BUCKET, Key=key, Body=b"x" * 100, Tagging="k=v")
    for name in ("e", "other"):
        container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/kept"}
        call("sagemaker", "CreateModel", ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    upload = call("s3", "CreateMultipartUpload", Bucket=BUCKET, Key="parts")["UploadId"]
    call("s3", "UploadPart", Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    variant = {
        "VariantName": "all",
        "ModelName": "e",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    call("sagemaker", "CreateEndpointConfig", EndpointConfigName="e", ProductionVariants=[variant])
    call("sagemaker", "AddTags", ResourceArn=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/e", Tags=TAGS)
    call("sagemaker", "CreateEndpoint", EndpointName="e", EndpointConfigName="e")
    with world.control._store.write() as tx:
        endpoint = tx.resources.find(ACCOUNT, REGION, ENDPOINT.name, "e")
        assert endpoint is not None
        tx.resources.update(endpoint, status="InService")
    target = call(
        "application-autoscaling",
        "RegisterScalableTarget",
        **TARGET,
        MinCapacity=1,
        MaxCapacity=2,
        Tags={"k": "v"},
    )["ScalableTargetARN"]
    call(
        "application-autoscaling",
        "PutScalingPolicy",
        **TARGET,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
        },
    )
    call(
        "application-autoscaling",
        "PutScheduledAction",
        **TARGET,
        ScheduledActionName="a",
        Schedule="cron(0 0 * * ? *)",
        ScalableTargetAction={"MinCapacity": 1},
    )
    call(
        "cloudwatch",
        "PutMetricAlarm",
        AlarmName="a",
        Namespace="n",
        MetricName="m",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
        Tags=TAGS,
    )
    topic = call("sns", "CreateTopic", Name="t", Tags=TAGS)["TopicArn"]
    subscription = call(
        "sns",
        "Subscribe",
        TopicArn=topic,
        Protocol="http",
        Endpoint="http://127.0.0.1:9/",
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    names = {"upload": upload, "target": target, "topic": topic, "subscription": subscription}
    return names | make_identities(world)


def make_identities(world: World) -> dict[str, str]:
    def call(operation: str, **params: Any) -> Any:
        return world.call("iam", operation, **params)

    for name in ("p", "other"):
        call("CreatePolicy", PolicyName=name, PolicyDocument=DOCUMENT)
    call("CreatePolicyVersion", PolicyArn=POLICY_ARN, PolicyDocument=DOCUMENT)
    call("CreateUser", UserName="u", Tags=TAGS)
    call("PutUserPolicy", UserName="u", PolicyName="inline", PolicyDocument=DOCUMENT)
    call("AttachUserPolicy", UserName="u", PolicyArn=POLICY_ARN)
    call("CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST, Tags=TAGS)
    call("PutRolePolicy", RoleName="r", PolicyName="inline", PolicyDocument=DOCUMENT)
    call("AttachRolePolicy", RoleName="r", PolicyArn=POLICY_ARN)
    return {"key": call("CreateAccessKey", UserName="u")["AccessKey"]["AccessKeyId"]}


def deletions(made: Mapping[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """In an order that the services accept."""
    alarm = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:a"
    one = {"Bucket": BUCKET, "Key": "one"}
    user, role = {"UserName": "u"}, {"RoleName": "r"}
    return [
        ("application-autoscaling", "UntagResource", {"ResourceARN": made["target"], "TagKeys": ["k"]}),
        ("application-autoscaling", "DeleteScalingPolicy", {**TARGET, "PolicyName": "p"}),
        ("application-autoscaling", "DeleteScheduledAction", {**TARGET, "ScheduledActionName": "a"}),
        ("application-autoscaling", "DeregisterScalableTarget", TARGET),
        ("cloudwatch", "UntagResource", {"ResourceARN": alarm, "TagKeys": ["k"]}),
        ("cloudwatch", "DeleteAlarms", {"AlarmNames": ["a"]}),
        ("sns", "UntagResource", {"ResourceArn": made["topic"], "TagKeys": ["k"]}),
        ("sns", "Unsubscribe", {"SubscriptionArn": made["subscription"]}),
        ("sns", "DeleteTopic", {"TopicArn": made["topic"]}),
        ("s3", "DeleteBucketTagging", {"Bucket": BUCKET}),
        ("s3", "DeleteObjectTagging", one),
        ("s3", "DeleteObject", one),
        (
            "s3",
            "DeleteObjects",
            {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": "two"}, {"Key": "three"}]}},
        ),
        ("s3", "AbortMultipartUpload", {"Bucket": BUCKET, "Key": "parts", "UploadId": made["upload"]}),
        ("s3", "DeleteBucket", {"Bucket": "empty"}),
        (
            "sagemaker",
            "DeleteTags",
            {"ResourceArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/e", "TagKeys": ["k"]},
        ),
        ("sagemaker", "DeleteEndpoint", {"EndpointName": "e"}),
        ("sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": "e"}),
        ("sagemaker", "DeleteModel", {"ModelName": "e"}),
        ("iam", "UntagUser", {**user, "TagKeys": ["k"]}),
        ("iam", "UntagRole", {**role, "TagKeys": ["k"]}),
        ("iam", "DeleteAccessKey", {**user, "AccessKeyId": made["key"]}),
        ("iam", "DeleteUserPolicy", {**user, "PolicyName": "inline"}),
        ("iam", "DetachUserPolicy", {**user, "PolicyArn": POLICY_ARN}),
        ("iam", "DeleteUser", user),
        ("iam", "DeleteRolePolicy", {**role, "PolicyName": "inline"}),
        ("iam", "DetachRolePolicy", {**role, "PolicyArn": POLICY_ARN}),
        ("iam", "DeleteRole", role),
        ("iam", "DeletePolicyVersion", {"PolicyArn": POLICY_ARN, "VersionId": "v2"}),
        ("iam", "DeletePolicy", {"PolicyArn": POLICY_ARN}),
    ]


def left(world: World) -> dict[str, Any]:
    """Names of what is still there."""
    call = world.call
    return {
        "targets": call("application-autoscaling", "DescribeScalableTargets", ServiceNamespace="sagemaker")[
            "ScalableTargets"
        ],
        "alarms": call("cloudwatch", "DescribeAlarms")["MetricAlarms"],
        "topics": call("sns", "ListTopics")["Topics"],
        "buckets": [each["Name"] for each in call("s3", "ListBuckets")["Buckets"]],
        "objects": [each["Key"] for each in call("s3", "ListObjectsV2", Bucket=BUCKET)["Contents"]],
        "uploads": call("s3", "ListMultipartUploads", Bucket=BUCKET).get("Uploads", []),
        "models": [each["ModelName"] for each in call("sagemaker", "ListModels")["Models"]],
        "configs": call("sagemaker", "ListEndpointConfigs")["EndpointConfigs"],
        "endpoints": [each["EndpointStatus"] for each in call("sagemaker", "ListEndpoints")["Endpoints"]],
        "users": call("iam", "ListUsers")["Users"],
        "roles": [each["RoleName"] for each in call("iam", "ListRoles")["Roles"]],
        "policies": [each["PolicyName"] for each in call("iam", "ListPolicies", Scope="Local")["Policies"]],
    }


def test_every_deletion_of_every_service_goes_through_on_a_full_disk(world: World, disk: FailingDisk) -> None:
    made = make(world)
    wanted = deletions(made)
    answered = {each for each in operation_names() if each[1].startswith(DELETIONS)}
    assert {(service, operation) for service, operation, _ in wanted} == answered, "one is missing here"
    with disk.full_at(1, lasting=True, in_place=True):
        with pytest.raises(ClientError, match="free some space"):
            world.call("iam", "CreateUser", UserName="new")
        refused = {}
        for service, operation, params in wanted:
            try:
                world.call(service, operation, **params)
            except ClientError as error:
                refused[f"{service} {operation}"] = str(error)
        assert refused == {}
        found = left(world)
        known = identities.read(world.settings.keys_dir)
    assert found == {
        "targets": [],
        "alarms": [],
        "topics": [],
        "buckets": [BUCKET],
        "objects": ["kept"],
        "uploads": [],
        "models": ["other"],
        "configs": [],
        "endpoints": ["Deleting"],
        "users": [],
        "roles": ["SageMakerExecutionRole"],
        "policies": ["other"],
    }
    assert known.keys == (), "the gateways go by this file"
    assert [access.arn for access in known.accesses] == [ROLE]


def test_a_key_is_taken_out_of_use_on_a_full_disk_and_not_put_into_use(
    world: World, disk: FailingDisk
) -> None:
    key = {"UserName": "u", "AccessKeyId": make_identities(world)["key"]}
    with disk.full_at(1, lasting=True, in_place=True):
        world.call("iam", "UpdateAccessKey", **key, Status="Inactive")
        with pytest.raises(ClientError, match="free some space"):
            world.call("iam", "UpdateAccessKey", **key, Status="Active")
        [found] = world.call("iam", "ListAccessKeys", UserName="u")["AccessKeyMetadata"]
        assert found["Status"] == "Inactive"
        assert identities.read(world.settings.keys_dir).keys == (), "the gateways go by this file"


def test_objects_are_deleted_on_a_disk_that_somebody_else_keeps_full(
    world: World, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is given back, others take it first."""
    names = [f"{number}" for number in range(40)]
    world.call("s3", "CreateBucket", Bucket=BUCKET)
    for name in names:
        world.call("s3", "PutObject", Bucket=BUCKET, Key=name, Body=b"x")
    monkeypatch.setattr(disk, "give_back", lambda path, size: None)
    with disk.full_at(1, lasting=True, in_place=True):
        for name in names:
            world.call("s3", "DeleteObject", Bucket=BUCKET, Key=name)
        assert "Contents" not in world.call("s3", "ListObjectsV2", Bucket=BUCKET)


def test_a_change_that_the_gateways_could_not_be_told_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_identities(world)
    before = identities.read(world.settings.keys_dir)

    def full(keys_dir: Path, found: identities.Identities) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(identities, "write", full)
        with pytest.raises(ClientError, match=r"not certain that every gateway .* No space left on device"):
            world.call("iam", "DeleteUserPolicy", UserName="u", PolicyName="inline")
    assert identities.read(world.settings.keys_dir) == before
    world.control._identities.catch_up()
    after = identities.read(world.settings.keys_dir)
    assert [len(access.policies) for access in after.accesses if access.arn.endswith("/u")] == [1]
    (world.settings.keys_dir / "identities.json").unlink()
    world.control._identities.catch_up()
    assert not (world.settings.keys_dir / "identities.json").exists(), "nothing was left to be told"


def of(count: int) -> identities.Identities:
    return identities.Identities(keys=tuple(identities.UserKey(f"{n}", "s" * 100, "a") for n in range(count)))


def test_the_file_of_identities_is_whole_at_every_write_of_a_full_disk(
    root: Path, disk: FailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    for at in range(1, 12):
        identities.write(root, of(100))
        with disk.full_at(at, lasting=True) as attempt:
            try:
                identities.write(root, of(99))
                expected = {99}
            except OSError:
                expected = {99, 100}
        assert len(identities.read(root).keys) in expected, attempt.failed
    assert not attempt.was_hit
    with disk.full_at(1, lasting=True, in_place=True):
        for count in reversed(range(100)):
            identities.write(root, of(count))
            assert identities.read(root) == of(count)
    identities.write(root, of(200))
    assert identities.read(root) == of(200)


def test_who_is_killed_at_any_step_on_a_full_disk_leaves_the_next_deletion_its_room(
    root: Path, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dying(call: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return call(*args, **more)

        return step

    outcomes = []
    for at in range(20):
        identities.write(root, of(10))
        with disk.full_at(1, lasting=True, in_place=True):
            with monkeypatch.context() as patched, suppress(Killed):
                left = iter(range(at))
                for name in ("write", "ftruncate", "fsync", "unlink", "link", "rename"):
                    patched.setattr(os, name, dying(getattr(os, name), left))
                identities.write(root, of(9))
            outcomes.append(len(identities.read(root).keys))
            identities.write(root, of(8))
            assert identities.read(root) == of(8)
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {9, 10}


def test_who_reads_the_file_of_identities_while_it_is_written_over_reads_it_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities.write(root, of(3))
    place, spare = root / "identities.json", root / "identities.spare"
    opened = Path.open
    begun: list[Path] = []

    def overtaken(self: Path, *args: Any, **more: Any) -> Any:
        file = opened(self, *args, **more)
        if self == place:
            begun.append(self)
            if len(begun) == 1:
                identities._put_in_spare(place, spare, msgspec.json.encode(of(2)))
                spare.write_bytes(b"{")  # by who writes next, and is not done yet
        return file

    monkeypatch.setattr(Path, "open", overtaken)
    assert identities.read(root) == of(2)
