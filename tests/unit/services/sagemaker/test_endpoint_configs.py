"""Endpoint configurations: what is kept, what is refused by name."""

from typing import Any

import pytest

from clary.domain.endpoints import EndpointSpec, Fleet
from clary.domain.faults import Fault
from clary.domain.routes import Capture
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
        ([{"VariantName": "A"}, {"VariantName": "a"}], {}, "configuration: A"),
        ([{"InitialVariantWeight": 0.0}], {}, "InitialVariantWeight above 0"),
        ([{"InstanceType": "ml.inf2.xlarge"}], {}, "Instance type ml.inf2.xlarge is not supported"),
        ([{"InstanceType": "ml.p6-b200.48xlarge"}], {}, "Instance type ml.p6-b200.48xlarge is not supported"),
        ([{"ServerlessConfig": {"MemorySizeInMB": 1024}}], {}, "ServerlessConfig is not supported"),
        ([{"ManagedInstanceScaling": {"Status": "ENABLED"}}], {}, "ManagedInstanceScaling is not supported"),
        ([{"RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE"}}], {}, "RoutingStrategy PREFIX_AWARE is not"),
        ([{"CoreDumpConfig": {"DestinationS3Uri": "s3://b"}}], {}, "CoreDumpConfig is not supported"),
        ([{}], {"AsyncInferenceConfig": {"OutputConfig": {}}}, "AsyncInferenceConfig is not supported"),
        ([{}], {"ExplainerConfig": {"ClarifyExplainerConfig": {}}}, "ExplainerConfig is not supported"),
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


CAPTURE: dict[str, Any] = {
    "InitialSamplingPercentage": 20,
    "DestinationS3Uri": "s3://bucket/prefix",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {
        "CsvContentTypes": ["text/csv"],
        "JsonContentTypes": ["application/json"],
    },
    "KmsKeyId": "key",
}


def create(control: Control, name: str = "c", **members: Any) -> None:
    wanted = {"EndpointConfigName": name, "ProductionVariants": [variant()]} | members
    control.call("CreateEndpointConfig", **wanted)


def fleet(control: Control, name: str = "e") -> Fleet:
    with control.store.read() as tx:
        found = tx.resources.find(control.account, control.region, "endpoint", name)
    assert found is not None
    return found.spec_as(EndpointSpec).fleet


def test_G01_capture_is_kept_shown_and_frozen_into_the_fleet(control: Control) -> None:
    control.model()
    create(control, DataCaptureConfig=CAPTURE)
    shown = control.call("DescribeEndpointConfig", EndpointConfigName="c")
    assert shown["DataCaptureConfig"] == CAPTURE | {"EnableCapture": True}
    control.endpoint()
    assert fleet(control).capture == Capture(
        "s3://bucket/prefix", 20.0, True, True, ("text/csv",), ("application/json",), "key"
    )
    control.settle(6)
    assert control.describe()["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 20,
        "DestinationS3Uri": "s3://bucket/prefix",
        "KmsKeyId": "key",
    }


def test_G01_capture_that_is_switched_off_is_shown_and_not_done(control: Control) -> None:
    control.model()
    only_input = [{"CaptureMode": "Input"}]
    create(control, DataCaptureConfig=CAPTURE | {"EnableCapture": False, "CaptureOptions": only_input})
    control.endpoint()
    assert fleet(control).capture is None
    shown = control.describe()["DataCaptureConfig"]
    assert (shown["EnableCapture"], shown["CaptureStatus"]) == (False, "Stopped")


@pytest.mark.parametrize(
    ("excluded", "percent"), [([], 20.0), (["DataCaptureConfig"], 50.0), (["DesiredWeight"], 20.0)]
)
def test_H14_capture_is_one_of_the_properties_that_an_update_may_keep(
    control: Control, excluded: list[str], percent: float
) -> None:
    control.model()
    create(control, DataCaptureConfig=CAPTURE)
    create(control, "d", DataCaptureConfig=CAPTURE | {"InitialSamplingPercentage": 50})
    control.endpoint()
    control.settle(6)
    control.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="d",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": name} for name in excluded],
    )
    capture = fleet(control).capture
    assert capture is not None
    assert capture.percent == percent


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"DestinationS3Uri": "https://bucket/x"}, "must be s3://BUCKET"),
        ({"DestinationS3Uri": "s3:///x"}, "must be s3://BUCKET"),
        ({"CaptureContentTypeHeader": {}}, "needs CsvContentTypes or JsonContentTypes"),
        (
            {"CaptureContentTypeHeader": {"CsvContentTypes": ["A/b"], "JsonContentTypes": ["a/B"]}},
            "a/b is named as both",
        ),
    ],
)
def test_G01_capture_that_cannot_be_is_refused(
    control: Control, members: dict[str, object], words: str
) -> None:
    control.model()
    with pytest.raises(Fault, match=words):
        create(control, DataCaptureConfig=CAPTURE | members)


def test_D08_a_shadow_is_kept_shown_and_frozen_into_the_fleet(control: Control) -> None:
    control.model()
    create(control, ShadowProductionVariants=[variant(VariantName="Shadow", InitialVariantWeight=0.5)])
    shown = control.call("DescribeEndpointConfig", EndpointConfigName="c")
    assert [v["VariantName"] for v in shown["ShadowProductionVariants"]] == ["Shadow"]
    control.endpoint()
    assert [(v.name, v.weight) for v in fleet(control).shadows] == [("Shadow", 0.5)]
    assert [v.name for v in fleet(control).variants] == ["AllTraffic"]


@pytest.mark.parametrize(
    ("production", "shadows", "words"),
    [
        (["A", "B"], ["S"], "exactly one production variant"),
        (["A"], ["S", "T"], "exactly one production variant"),
        (["A"], ["a"], "must be unique"),
    ],
)
def test_D08_one_shadow_belongs_to_one_production_variant(
    control: Control, production: list[str], shadows: list[str], words: str
) -> None:
    control.model()
    with pytest.raises(Fault, match=words):
        create(
            control,
            ProductionVariants=[variant(VariantName=name) for name in production],
            ShadowProductionVariants=[variant(VariantName=name) for name in shadows],
        )


def test_D08_a_shadows_model_must_be_there(control: Control) -> None:
    control.model()
    with pytest.raises(Fault, match="Could not find model"):
        create(control, ShadowProductionVariants=[variant(VariantName="S", ModelName="absent")])
