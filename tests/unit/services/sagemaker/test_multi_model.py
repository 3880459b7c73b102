"""Multi-model containers: what CreateModel takes and refuses, and what becomes of it on the way to the gateways."""

from typing import Any

import pytest

from clary.domain.faults import Fault
from clary.domain.instances import InstanceSpec, ModelSource
from clary.drivers.fake import Plan
from control.harness import IMAGE, Control

PREFIX = "s3://models/flats/"


def container(**more: Any) -> dict[str, Any]:
    return {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": PREFIX, **more}


def data(uri: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (container(ModelDataUrl=""), "ModelDataUrl must be specified for a container whose Mode is MultiModel"),
        (container(ModelDataUrl="s3://models/flats"), 'must be an S3 prefix that ends with "/": s3://models/flats'),
        (container(ModelDataUrl="s3://absent/flats/"), "Could not find model data at s3://absent/flats/"),
        (container(ModelDataUrl="https://example.com/"), "Could not find model data at https://example.com/"),
        (container(ModelDataSource=data(PREFIX)), "ModelDataSource cannot be used with a container whose Mode is"),
        (
            {"Image": IMAGE, "MultiModelConfig": {"ModelCacheSetting": "Disabled"}},
            "MultiModelConfig can be specified only for a container whose Mode is MultiModel",
        ),
    ],
)  # fmt: skip
def test_M01_what_cannot_be_a_multi_model_container_is_refused(
    control: Control, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(Fault, match="ValidationException") as refused:
        control.call("CreateModel", ModelName="m", PrimaryContainer=given)
    assert words in refused.value.message


@pytest.mark.parametrize(("mode", "words"), [("Direct", "Direct"), ("Serial", "inference pipeline")])
def test_M01_one_of_several_containers_has_one_model(control: Control, mode: str, words: str) -> None:
    several = [
        container(ContainerHostname="one"),
        {"Image": IMAGE, "ModelDataUrl": "s3://models/model.tar.gz", "ContainerHostname": "two"},
    ]
    with pytest.raises(Fault) as refused:
        control.call(
            "CreateModel", ModelName="m", Containers=several, InferenceExecutionConfig={"Mode": mode}
        )
    assert "MultiModel" in refused.value.message
    assert words in refused.value.message


@pytest.mark.parametrize("caching", [None, "Enabled", "Disabled"])
def test_M01_a_prefix_goes_from_the_model_to_instances_and_gateways(
    control: Control, caching: str | None
) -> None:
    more = {} if caching is None else {"MultiModelConfig": {"ModelCacheSetting": caching}}
    given = container(**more)
    control.call("CreateModel", ModelName="m", PrimaryContainer=given)
    assert control.call("DescribeModel", ModelName="m")["PrimaryContainer"] == given
    started: list[InstanceSpec] = []

    def plan(spec: InstanceSpec) -> Plan:
        started.append(spec)
        return Plan()

    control.driver.plan(plan)
    control.config()
    control.endpoint()
    control.settle(5)
    is_cached = caching != "Disabled"
    spec = started[0]
    assert (spec.models, spec.artifacts) == (ModelSource(PREFIX, is_cached=is_cached), ())
    (variant,) = control.routing.published[-1].variants
    assert (variant.models, variant.keeps_models) == (PREFIX, is_cached)


def test_M01_addresses_of_other_forms_name_the_same_place(control: Control) -> None:
    given = container(ModelDataUrl="https://models.s3.eu-central-1.amazonaws.com/flats/")
    control.call("CreateModel", ModelName="m", PrimaryContainer=given)
    control.config()
    control.endpoint()
    control.settle(5)
    assert control.routing.published[-1].variants[0].models == PREFIX
