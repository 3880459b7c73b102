"""Refusals in AWS's words."""

from typing import Any

import pytest
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.testing.shapes import broken_input_for, check_output, input_for
from clary.wire.generate import OPERATIONS
from clary.wire.models import ServiceModels
from clary.wire.validate import validate

MODELS = ServiceModels()

NAME = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
VARIANT = {
    "VariantName": "AllTraffic",
    "ModelName": "m",
    "InstanceType": "ml.m5.large",
    "InitialInstanceCount": 1,
}


def operation(service: str, name: str) -> OperationModel:
    return MODELS.service(service).operation(name)


def refusal(service: str, name: str, params: dict[str, Any]) -> Fault:
    with pytest.raises(Fault) as caught:
        validate(operation(service, name), params)
    assert caught.value.status == 400
    return caught.value


def said(service: str, name: str, params: dict[str, Any]) -> str:
    return refusal(service, name, params).message


def test_H02_a_missing_member_is_null() -> None:
    fault = refusal("sagemaker", "DescribeEndpoint", {})
    assert fault.code == "ValidationException"
    assert fault.message == (
        "1 validation error detected: Value null at 'endpointName' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_H02_a_pattern_is_named() -> None:
    assert said("sagemaker", "DescribeEndpoint", {"EndpointName": "a_b"}) == (
        "1 validation error detected: Value 'a_b' at 'endpointName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {NAME}"
    )


def test_H02_a_pattern_must_match_the_whole_value() -> None:
    for name in ("abc!", "!abc", "abc\n", "-abc", "abc-"):
        refusal("sagemaker", "DescribeEndpoint", {"EndpointName": name})


def test_H02_what_is_too_long_is_only_too_long() -> None:
    assert said("sagemaker", "DescribeEndpoint", {"EndpointName": "_" * 64}) == (
        f"1 validation error detected: Value '{'_' * 64}' at 'endpointName' failed to satisfy constraint: "
        "Member must have length less than or equal to 63"
    )


def test_H02_a_huge_value_is_quoted_in_part() -> None:
    message = said("sagemaker", "DescribeEndpoint", {"EndpointName": "x" * 100_000})
    assert f"Value '{'x' * 256}...' at" in message
    assert len(message) < 500


def test_H02_violations_are_counted_and_told_together() -> None:
    variant = VARIANT | {"ModelName": "a b", "InitialInstanceCount": 0}
    params = {"EndpointConfigName": "config", "ProductionVariants": [VARIANT, variant]}
    assert said("sagemaker", "CreateEndpointConfig", params) == (
        "2 validation errors detected: "
        "Value 'a b' at 'productionVariants.2.member.modelName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern_of_model_name()}; "
        "Value '0' at 'productionVariants.2.member.initialInstanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_H02_an_enum_names_its_values() -> None:
    assert said("sagemaker", "ListEndpoints", {"SortOrder": "Sideways"}) == (
        "1 validation error detected: Value 'Sideways' at 'sortOrder' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Ascending, Descending]"
    )


def test_H02_an_empty_list_is_too_short() -> None:
    params = {"EndpointConfigName": "config", "ProductionVariants": []}
    assert said("sagemaker", "CreateEndpointConfig", params) == (
        "1 validation error detected: Value '[]' at 'productionVariants' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )


def test_H02_a_list_of_texts_is_told_as_a_whole() -> None:
    message = said(
        "sagemaker",
        "DeleteTags",
        {"ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "TagKeys": ["ok", ""]},
    )
    assert message.startswith(
        "1 validation error detected: Value '[ok, ]' at 'tagKeys' failed to satisfy constraint: "
        "Member must satisfy constraint: [Member must have length less than or equal to 128, "
        "Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: "
    )


def test_H02_the_keys_of_a_map_are_told_as_a_whole() -> None:
    params = {
        "ModelName": "m",
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r",
        "PrimaryContainer": {"Image": "i", "Environment": {"1X": "v"}},
    }
    assert said("sagemaker", "CreateModel", params) == (
        "1 validation error detected: Value '{1X=v}' at 'primaryContainer.environment' failed to satisfy constraint: "
        "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
        "Member must have length greater than or equal to 0, "
        "Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]"
    )


def test_H02_null_in_a_list_is_refused() -> None:
    params = {"EndpointConfigName": "config", "ProductionVariants": [None]}
    assert "Value null at 'productionVariants.1.member' failed" in said(
        "sagemaker", "CreateEndpointConfig", params
    )


def test_many_violations_are_counted_but_not_all_told() -> None:
    variants = [{"VariantName": "!"}] * 10
    params = {
        "EndpointConfigName": "!",
        "ProductionVariants": variants,
        "ShadowProductionVariants": variants * 2,
    }
    message = said("sagemaker", "CreateEndpointConfig", params)
    assert message.startswith("12 validation errors detected: ")


def test_a_secret_is_not_quoted() -> None:
    params = {"EndpointName": "e", "Body": b"", "CustomAttributes": "é"}
    message = said("sagemaker-runtime", "InvokeEndpoint", params)
    assert message.startswith("1 validation error detected: Value at 'customAttributes' failed")


def test_each_service_has_its_code() -> None:
    assert refusal("logs", "GetLogEvents", {}).code == "InvalidParameterException"
    assert refusal("iam", "GetRole", {}).code == "ValidationError"
    assert refusal("cloudwatch", "GetMetricStatistics", {}).code == "ValidationError"
    assert refusal("sagemaker-runtime", "InvokeEndpoint", {}).code == "ValidationError"


def test_s3_asks_only_for_what_it_needs() -> None:
    validate(operation("s3", "PutObject"), {"Bucket": "!", "Key": "k", "StorageClass": "GOLD"})
    assert refusal("s3", "DeleteObjects", {"Bucket": "b"}).code == "MissingRequestBodyError"
    assert refusal("s3", "DeleteObjects", {"Bucket": "b", "Delete": {}}).code == "MalformedXML"
    assert refusal("s3", "DeleteObjects", {"Bucket": "b", "Delete": {"Objects": [{}]}}).code == "MalformedXML"
    assert refusal("s3", "UploadPart", {"Bucket": "b", "Key": "k"}).code == "InvalidArgument"


def test_the_output_of_a_client_is_checked() -> None:
    endpoint = {"EndpointName": "e", "EndpointStatus": "InService"}
    with pytest.raises(AssertionError, match="Value null at 'endpointArn'"):
        check_output(operation("sagemaker", "DescribeEndpoint"), endpoint)
    with pytest.raises(AssertionError, match=r"GetObject.Size is not in the model"):
        check_output(operation("s3", "GetObject"), {"Body": object(), "Size": 1})
    check_output(operation("s3", "GetObject"), {"Body": object(), "ResponseMetadata": {}})
    check_output(operation("sagemaker", "DeleteEndpoint"), {"ResponseMetadata": {}})


def test_an_operation_without_input_is_always_valid() -> None:
    validate(operation("sts", "GetCallerIdentity"), {})


@pytest.mark.slow
@pytest.mark.parametrize("service", [service for service in OPERATIONS if service != "s3"])
def test_what_fits_the_model_is_valid_and_what_does_not_is_refused(service: str) -> None:
    for name in OPERATIONS[service]:
        model = operation(service, name)
        if model.input_shape is None or not model.input_shape.members:
            continue
        check_validation(model)


def check_validation(model: OperationModel) -> None:
    assert isinstance(model.input_shape, StructureShape)
    can_be_wrong = has_rules(model.input_shape)

    @settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        validate(model, data.draw(input_for(model), label=model.name))
        if not can_be_wrong:
            return
        with pytest.raises(Fault, match="validation error"):
            validate(model, data.draw(broken_input_for(model), label=model.name))

    check()


def has_rules(shape: Shape, seen: frozenset[str] = frozenset()) -> bool:
    """Whether anything of the right types can break the model: ListTopics, say, takes every token."""
    if shape.name in seen:
        return False
    seen |= {shape.name}
    if any(shape.metadata.get(rule) for rule in ("required", "pattern", "enum", "min", "max")):
        return True
    match shape:
        case StructureShape():
            return any(has_rules(member, seen) for member in shape.members.values())
        case ListShape():
            return has_rules(shape.member, seen)
        case MapShape():
            return has_rules(shape.key, seen) or has_rules(shape.value, seen)
        case _:
            return False


def pattern_of_model_name() -> str:
    shape = operation("sagemaker", "CreateModel").input_shape
    assert shape is not None
    return str(shape.members["ModelName"].metadata["pattern"])
