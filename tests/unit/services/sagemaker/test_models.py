"""Models: what CreateModel checks, refuses by name and shows again."""

from typing import Any

import pytest

from clary.domain.faults import Fault
from clary.domain.instances import Artifact
from clary.services.sagemaker.containers import artifacts_of
from control.harness import ARTEFACT, IMAGE, REGION, Control

ECR = f"111122223333.dkr.ecr.{REGION}.amazonaws.com"


def refusal(control: Control, **params: object) -> str:
    with pytest.raises(Fault) as refused:
        control.call("CreateModel", ModelName="m", **params)
    assert refused.value.code == "ValidationException"
    with control.store.read() as tx:
        assert tx.resources.counts() == {}
    return refused.value.message


def test_H01_a_model_is_shown_as_it_was_given(control: Control) -> None:
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    container = {
        "Image": IMAGE,
        "ModelDataUrl": ARTEFACT,
        "Environment": {"FLOW": "1"},
        "ContainerHostname": "front",
    }
    role = "arn:aws:iam::123456789012:role/Mine"
    answer = control.call(
        "CreateModel",
        ModelName="Mo-del",
        PrimaryContainer=container,
        ExecutionRoleArn=role,
        VpcConfig=vpc,
        Tags=[{"Key": "a", "Value": "1"}],
    )
    assert answer == {"ModelArn": f"arn:aws:sagemaker:{REGION}:123456789012:model/mo-del"}
    assert control.call("DescribeModel", ModelName="mo-DEL") == {
        "ModelName": "Mo-del",
        "ModelArn": answer["ModelArn"],
        "CreationTime": control.clock.now(),
        "PrimaryContainer": container,
        "ExecutionRoleArn": role,
        "VpcConfig": vpc,
        "EnableNetworkIsolation": False,
    }


def test_H01_one_container_may_stand_in_the_list(control: Control) -> None:
    control.call("CreateModel", ModelName="m", Containers=[{"Image": IMAGE, "ModelDataUrl": ARTEFACT}])
    assert control.call("DescribeModel", ModelName="m")["Containers"][0]["Image"] == IMAGE
    control.config()
    control.endpoint()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Either PrimaryContainer or Containers must be specified."),
        ({"PrimaryContainer": {"Image": IMAGE}, "Containers": [{"Image": IMAGE}]}, "not both"),
        ({"PrimaryContainer": {"ModelDataUrl": ARTEFACT}}, "Image must be specified"),
        ({"PrimaryContainer": {"ModelPackageName": "p"}}, "ModelPackageName is not supported"),
        (
            {"PrimaryContainer": {"Image": IMAGE, "ImageConfig": {"RepositoryAccessMode": "Vpc"}}},
            "RepositoryAccessMode Vpc is not supported",
        ),
        (
            {"PrimaryContainer": {"Image": IMAGE}, "InferenceExecutionConfig": {"Mode": "Direct"}},
            "InferenceExecutionConfig Mode Direct requires more than one container",
        ),
        (
            {"PrimaryContainer": {"Image": IMAGE}, "EnableNetworkIsolation": True},
            "EnableNetworkIsolation is not supported by this server: its instances share one network",
        ),
        (
            {"PrimaryContainer": {"Image": IMAGE, "Environment": {"A" * 900: "b" * 1000, **{
                f"K{n}": "v" * 1000 for n in range(40)
            }}}},
            "32 KB",
        ),
        ({"PrimaryContainer": {"Image": f"{ECR}/mine:1"}}, f"Requested image {ECR}/mine:1 not found."),
        ({"PrimaryContainer": {"Image": f"{ECR}/mine:1"}}, "sagemaker-xgboost"),
        ({"PrimaryContainer": {"Image": ":1"}}, 'ECR image ":1" is invalid.'),
        (
            {"PrimaryContainer": {"Image": "docker.io/x/y:1"}},
            'Using non-ECR image "docker.io/x/y:1" without Vpc repository access mode is not supported.',
        ),
        (
            {"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://models/absent.tar.gz"}},
            "Could not find model data at s3://models/absent.tar.gz",
        ),
        (
            {"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "https://example.com/model.tar.gz"}},
            "Could not find model data at https://example.com/model.tar.gz",
        ),
    ],
)  # fmt: skip
def test_H01_what_cannot_be_a_model_is_refused_with_words(
    control: Control, params: dict[str, object], words: str
) -> None:
    assert words in refusal(control, **params)


def source(uri: str, data_type: str, compression: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3Uri": uri, "S3DataType": data_type, "CompressionType": compression}}


@pytest.mark.parametrize(
    ("container", "artifact"),
    [
        ({"ModelDataUrl": "s3://b/k.tar.gz"}, Artifact("s3://b/k.tar.gz", kind="archive")),
        ({"ModelDataUrl": "https://s3.eu-west-1.amazonaws.com/b/k"}, Artifact("s3://b/k")),
        ({"ModelDataUrl": "https://b.s3.eu-west-1.amazonaws.com/k%20k"}, Artifact("s3://b/k k")),
        ({"ModelDataSource": source("s3://b/p/", "S3Prefix", "None")}, Artifact("s3://b/p/", kind="prefix")),
        ({"ModelDataSource": source("s3://b/k", "S3Object", "Gzip")}, Artifact("s3://b/k", kind="archive")),
        ({"ModelDataSource": source("s3://b/k", "S3Object", "None")}, Artifact("s3://b/k", kind="object")),
        ({}, None),
    ],
)
def test_H05_artefacts_are_archives_prefixes_or_objects(container: Any, artifact: Artifact | None) -> None:
    assert artifacts_of(container) == (() if artifact is None else (artifact,))


def test_H05_a_prefix_without_objects_is_absent(control: Control) -> None:
    control.objects.uris.add("s3://models/tree/model.ubj")
    there = {"Image": IMAGE, "ModelDataSource": source("s3://models/tree/", "S3Prefix", "None")}
    absent = {"Image": IMAGE, "ModelDataSource": source("s3://models/bush/", "S3Prefix", "None")}
    assert "Could not find model data at s3://models/bush/" in refusal(control, PrimaryContainer=absent)
    control.call("CreateModel", ModelName="m", PrimaryContainer=there)


def test_H01_a_deleted_model_does_not_touch_its_endpoint(control: Control) -> None:
    control.model()
    control.config()
    control.endpoint()
    control.call("DeleteModel", ModelName="m")
    control.call("DeleteEndpointConfig", EndpointConfigName="c")
    control.settle(5)
    assert control.describe()["EndpointStatus"] == "InService"
    for id_ in control.held:
        control.driver.end(id_)
    control.settle(6)
    assert len(control.routing.targets("e")) == 1
