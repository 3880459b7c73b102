"""Models of several containers: what may be together, how endpoints are made of them, and what is shown."""

from dataclasses import replace
from typing import Any

import pytest

from clary.domain.faults import Fault
from clary.domain.instances import Container
from clary.drivers.fake import Plan
from control.harness import ARTEFACT, CRASHED, IMAGE, Control

FIRST = {"ContainerHostname": "first", "Image": IMAGE, "ModelDataUrl": ARTEFACT}
SECOND = {"ContainerHostname": "second", "Image": IMAGE, "Environment": {"SAGEMAKER_PROGRAM": "serve.py"}}
DIRECT = {"InferenceExecutionConfig": {"Mode": "Direct"}}
LARGE = {f"K{n}": "v" * 1000 for n in range(20)}


def unnamed(container: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in container.items() if name != "ContainerHostname"}


def refusal(control: Control, operation: str = "CreateModel", **params: Any) -> str:
    with pytest.raises(Fault) as refused:
        control.call(operation, **{"ModelName": "m", **params} if operation == "CreateModel" else params)
    assert refused.value.code == "ValidationException"
    return refused.value.message


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"Containers": [FIRST, {**SECOND, "ContainerHostname": "first"}], **DIRECT},
            'ContainerHostname must be unique within a model: "first" is specified more than once.',
        ),
        ({"Containers": [FIRST, {**SECOND, "ContainerHostname": "first"}]}, "must be unique"),
        ({"Containers": [FIRST, unnamed(SECOND)], **DIRECT}, "ContainerHostname must be specified for every"),
        ({"Containers": [unnamed(FIRST)] * 2, **DIRECT}, "ContainerHostname must be specified for every"),
        ({"Containers": [FIRST, unnamed(SECOND)]}, "or for none of them"),
        ({"Containers": [FIRST], **DIRECT}, "requires more than one container"),
        (
            {"Containers": [FIRST, {**SECOND, "Mode": "MultiModel"}], **DIRECT},
            "Mode MultiModel is not supported for a container of a model with InferenceExecutionConfig Mode Direct",
        ),
        (
            {"Containers": [FIRST, {**SECOND, "Mode": "MultiModel"}]},
            "Mode MultiModel for a container of an inference pipeline is not supported",
        ),
        (
            {"Containers": [{**each, "Environment": LARGE} for each in (FIRST, SECOND)]},
            "The total size of Environment of all containers must not exceed 32 KB.",
        ),
        ({"Containers": [FIRST, {**SECOND, "Image": "nowhere:1"}]}, "nowhere:1"),
        ({"Containers": [{**FIRST, "ModelDataUrl": "s3://models/absent"}, SECOND]}, "Could not find model data"),
    ],
)  # fmt: skip
def test_C01_what_cannot_be_together_is_refused_with_words(
    control: Control, params: dict[str, Any], words: str
) -> None:
    assert words in refusal(control, **params)


def test_C01_a_direct_model_is_shown_deployed_and_routed_container_by_container(control: Control) -> None:
    control.call("CreateModel", ModelName="m", Containers=[FIRST, SECOND], **DIRECT)
    shown = control.call("DescribeModel", ModelName="m")
    assert shown["InferenceExecutionConfig"] == {"Mode": "Direct"}
    assert shown["Containers"] == [FIRST, SECOND]
    control.config()
    control.endpoint()
    control.driver.auto = True
    control.settle()
    (route,) = control.routing.routes.values()
    (variant,) = route.variants
    assert (variant.containers, variant.is_direct) == (("first", "second"), True)
    assert len(variant.targets[0].addresses) == 2
    assert not variant.retries_elsewhere  # the second one's code is a user's
    images = control.describe()["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in images] == [IMAGE, IMAGE]
    assert all("@sha256:" in image["ResolvedImage"] for image in images)


def test_C02_a_pipeline_without_names_has_numbered_containers(control: Control) -> None:
    control.call("CreateModel", ModelName="m", Containers=[unnamed(FIRST)] * 15)
    control.config()
    control.endpoint()
    control.driver.auto = True
    control.settle()
    (route,) = control.routing.routes.values()
    assert route.variants[0].containers == tuple(f"container_{number}" for number in range(1, 16))
    assert not route.variants[0].is_direct
    assert route.variants[0].retries_elsewhere


def test_C02_the_reason_of_a_failure_names_the_container_and_its_data(control: Control) -> None:
    control.call("CreateModel", ModelName="m", Containers=[unnamed(FIRST), unnamed(FIRST)])
    control.config()
    control.endpoint()
    missing = replace(CRASHED, code="ArtifactMissing", container="container_2")
    control.driver.plan(lambda spec: Plan(until="starting", failure=missing))
    control.driver.auto = True
    control.settle()
    reason = control.describe()["FailureReason"]
    assert f'Failed to download model data for container "container_2" from URL: "{ARTEFACT}"' in reason


def test_C01_shadow_variants_take_models_of_one_container_only(control: Control) -> None:
    control.call("CreateModel", ModelName="one", PrimaryContainer={"Image": IMAGE})
    control.call("CreateModel", ModelName="two", Containers=[FIRST, SECOND])
    variant = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    for production, shadow in (("one", "two"), ("two", "one")):
        words = refusal(
            control,
            "CreateEndpointConfig",
            EndpointConfigName="c",
            ProductionVariants=[{**variant, "VariantName": "a", "ModelName": production}],
            ShadowProductionVariants=[{**variant, "VariantName": "b", "ModelName": shadow}],
        )
        assert 'not supported for models with more than one container: "two"' in words


def test_C01_containers_are_frozen_as_instances_have_them(control: Control) -> None:
    control.call("CreateModel", ModelName="m", Containers=[FIRST, SECOND], **DIRECT)
    control.config()
    control.endpoint()
    control.settle()
    with control.store.read() as tx:
        ((id_, _),) = tx.instances.phases().items()
        spec = tx.instances.spec(id_)
    assert spec is not None
    assert [each.name for each in spec.containers] == ["first", "second"]
    assert spec.containers[1] == Container("second", IMAGE, {"SAGEMAKER_PROGRAM": "serve.py"})
    assert (spec.artifacts, spec.environment) == ((), {})
