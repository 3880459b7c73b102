"""Endpoint configurations: what is kept, what is refused by name."""

import pytest

from clary.domain.faults import Fault
from control.harness import Control, variant


def test_H11_a_configuration_is_shown_as_it_was_given(control: Control) -> None:
    control.model()
    variants = [
        variant(VariantName="A", InitialVariantWeight=2.0, ContainerStartupHealthCheckTimeoutInSeconds=60),
        variant(VariantName="B", RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}),
    ]
    control.config("Con-fig", *variants)
    shown = control.call("DescribeEndpointConfig", EndpointConfigName="con-fig")
    assert shown["EndpointConfigName"] == "Con-fig"
    assert shown["EndpointConfigArn"].endswith(":endpoint-config/con-fig")
    assert shown["ProductionVariants"] == [variants[0], variants[1] | {"InitialVariantWeight": 1.0}]


def test_H11_numbers_reach_the_instances(control: Control) -> None:
    control.model()
    control.config("c", {"ContainerStartupHealthCheckTimeoutInSeconds": 77, "InstanceType": "ml.c5.xlarge"})
    control.endpoint()
    control.settle(5)
    (id_,) = control.held
    with control.store.read() as tx:
        spec = tx.instances.spec(id_)
    assert spec is not None
    assert (spec.startup_timeout_s, spec.vcpus, spec.memory_bytes) == (77.0, 4, 8 << 30)
    assert (spec.log.group, spec.log.stream) == ("/aws/sagemaker/Endpoints/e", f"AllTraffic/{id_}")


@pytest.mark.parametrize(
    ("variants", "others", "words"),
    [
        ([{"VariantName": "A"}, {"VariantName": "a"}], {}, "must be unique"),
        ([{"InitialVariantWeight": 0.0}], {}, "InitialVariantWeight above 0"),
        ([{"InstanceType": "ml.inf2.xlarge"}], {}, "Instance type ml.inf2.xlarge is not supported"),
        ([{"InstanceType": "ml.p6-b200.48xlarge"}], {}, "Instance type ml.p6-b200.48xlarge is not supported"),
        ([{"ServerlessConfig": {"MemorySizeInMB": 1024}}], {}, "ServerlessConfig is not supported"),
        ([{"ManagedInstanceScaling": {"Status": "ENABLED"}}], {}, "ManagedInstanceScaling is not supported"),
        ([{"RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE"}}], {}, "RoutingStrategy PREFIX_AWARE is not"),
        ([{"CoreDumpConfig": {"DestinationS3Uri": "s3://b"}}], {}, "CoreDumpConfig is not supported"),
        ([{}], {"AsyncInferenceConfig": {"OutputConfig": {}}}, "AsyncInferenceConfig is not supported"),
        ([{}], {"ShadowProductionVariants": [variant()]}, "ShadowProductionVariants is not supported"),
        ([{}], {"ExplainerConfig": {"ClarifyExplainerConfig": {}}}, "ExplainerConfig is not supported"),
        ([{}], {"DataCaptureConfig": {"EnableCapture": True}}, "DataCaptureConfig with EnableCapture is not"),
        ([{}], {"DataCaptureConfig": {}}, "DataCaptureConfig with EnableCapture is not"),
    ],
)
def test_H11_what_is_not_built_is_refused_by_name(
    control: Control, variants: list[dict[str, object]], others: dict[str, object], words: str
) -> None:
    control.model()
    with pytest.raises(Fault) as refused:
        control.call(
            "CreateEndpointConfig",
            EndpointConfigName="c",
            ProductionVariants=[variant(**members) for members in variants],
            **others,
        )
    assert refused.value.code == "ValidationException"
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("ModelName", "without ModelName"),
        ("InstanceType", "InstanceType must"),
        ("InitialInstanceCount", "InitialInstanceCount must"),
    ],
)
def test_H11_a_variant_needs_a_model_a_type_and_a_count(control: Control, absent: str, words: str) -> None:
    control.model()
    members = {name: value for name, value in variant().items() if name != absent}
    with pytest.raises(Fault, match=words):
        control.call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[members])
