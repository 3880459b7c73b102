"""AWS JSON: what is malformed, and what an answer must not be."""

import json
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.wire import protocols
from clary.wire.messages import Request, Response
from clary.wire.models import ServiceModels
from clary.wire.protocols.base import ShapeError

MODELS = ServiceModels()
ENDPOINT = {
    "EndpointName": "e",
    "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e",
    "EndpointStatus": "InService",
    "CreationTime": datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC),
    "LastModifiedTime": datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
}


class Status(StrEnum):
    IN_SERVICE = "InService"


def parse(name: str, body: bytes, service: str = "sagemaker") -> dict[str, Any]:
    operation = MODELS.service(service).operation(name)
    return protocols.load("json").parse(operation, Request("POST", "/", "", {}, body))


def serialize(name: str, members: dict[str, Any] | None, service: str = "sagemaker") -> Response:
    operation = MODELS.service(service).operation(name)
    return protocols.load("json").serialize(operation, members, request_id="r")


def text(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def malformed(name: str, body: bytes) -> str:
    with pytest.raises(Fault) as caught:
        parse(name, body)
    assert (caught.value.code, caught.value.status) == ("SerializationException", 400)
    return caught.value.message


def test_an_empty_body_has_no_members() -> None:
    assert parse("ListEndpoints", b"") == {}
    assert parse("ListEndpoints", b"{}") == {}


def test_null_is_absent_and_unknown_members_are_ignored() -> None:
    assert parse("ListEndpoints", b'{"NameContains": null, "Colour": {"a": []}, "MaxResults": 5}') == {
        "MaxResults": 5
    }


def test_times_come_as_numbers_or_as_text() -> None:
    expected = {"CreationTimeAfter": datetime(2020, 1, 1, tzinfo=UTC)}
    for value in (b"1577836800", b"1577836800.0", b'"2020-01-01T00:00:00Z"', b'"2020-01-01T02:00:00+02:00"'):
        assert parse("ListEndpoints", b'{"CreationTimeAfter": ' + value + b"}") == expected


def test_a_whole_float_is_an_integer() -> None:
    assert parse("ListEndpoints", b'{"MaxResults": 5.0}') == {"MaxResults": 5}


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("ListEndpoints", b"{", "The request body is not valid JSON."),
        ("ListEndpoints", b"\xff", "The request body is not valid JSON."),
        ("ListEndpoints", b'{"NameContains": "\\ud800"}', "The request body is not valid JSON."),
        ("ListEndpoints", b"[]", "The request body is not a JSON object."),
        ("ListEndpoints", b"[" * 100_000, "The request body is not valid JSON."),
        ("ListEndpoints", b'{"MaxResults": "5"}', "STRING_VALUE can not be converted to an Integer"),
        ("ListEndpoints", b'{"MaxResults": true}', "TRUE_VALUE can not be converted to an Integer"),
        ("ListEndpoints", b'{"MaxResults": 1.5}', "NUMBER_VALUE can not be converted to an Integer"),
        ("ListEndpoints", b'{"MaxResults": 4294967296}', "NUMBER_VALUE can not be converted to an Integer"),
        ("ListEndpoints", b'{"NameContains": 5}', "NUMBER_VALUE can not be converted to a String"),
        ("ListEndpoints", b'{"NameContains": {}}', "Start of structure or map found where not expected."),
        ("ListEndpoints", b'{"NameContains": []}', "Start of list found where not expected."),
        (
            "ListEndpoints",
            b'{"CreationTimeAfter": "soon"}',
            "STRING_VALUE can not be converted to a Timestamp",
        ),
        (
            "ListEndpoints",
            b'{"CreationTimeAfter": 1e300}',
            "NUMBER_VALUE can not be converted to a Timestamp",
        ),
        ("CreateModel", b'{"Containers": {}}', "Expected list or null"),
        ("CreateModel", b'{"PrimaryContainer": []}', "Expected structure or null"),
        ("CreateModel", b'{"PrimaryContainer": {"Environment": "a=b"}}', "Expected map or null"),
        (
            "CreateModel",
            b'{"EnableNetworkIsolation": "true"}',
            "STRING_VALUE can not be converted to a Boolean",
        ),
    ],
)
def test_H02_a_bad_body_is_refused(name: str, body: bytes, message: str) -> None:
    assert malformed(name, body) == message


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0123456789.eE-tnul\\ ').map(str.encode))
def test_no_body_is_worse_than_malformed(body: bytes) -> None:
    try:
        parse("CreateEndpointConfig", body)
    except Fault as fault:
        assert fault.code == "SerializationException"


_NAMES = st.sampled_from(
    ["EndpointConfigName", "ProductionVariants", "VariantName", "Tags", "Key", "ServerlessConfig"]
)
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_NAMES, _DOCUMENTS, max_size=4))
def test_no_document_is_worse_than_malformed(document: dict[str, Any]) -> None:
    try:
        parse("CreateEndpointConfig", json.dumps(document).encode())
    except Fault as fault:
        assert fault.code == "SerializationException"


def test_an_answer_without_output_has_an_empty_body() -> None:
    response = serialize("DeleteEndpoint", None)
    assert (response.status, response.body) == (200, b"")
    assert dict(response.headers) == {"x-amzn-RequestId": "r", "Content-Type": "application/x-amz-json-1.1"}


def test_an_answer_without_members_is_an_empty_object() -> None:
    assert text(serialize("AddTags", {"Tags": None})) == "{}"


def test_cloudwatch_answers_in_json_1_0() -> None:
    response = serialize("ListMetrics", {"Metrics": []}, "cloudwatch")
    assert dict(response.headers)["Content-Type"] == "application/x-amz-json-1.0"


def test_times_are_epoch_seconds_with_milliseconds() -> None:
    answer = json.loads(text(serialize("DescribeEndpoint", ENDPOINT | {"EndpointConfigName": "c"})))
    assert answer["CreationTime"] == 1767323045.678
    assert answer["LastModifiedTime"] == 1767323045.0


def test_an_enumeration_is_its_value() -> None:
    answer = json.loads(text(serialize("DescribeEndpoint", ENDPOINT | {"EndpointStatus": Status.IN_SERVICE})))
    assert answer["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Colour": "red"}, "there is no member Colour"),
        ({"EndpointName": None}, "needs EndpointName"),
        ({"EndpointName": 5}, "a string is due, not int"),
        ({"CreationTime": 5.0}, "a timestamp is due, not float"),
        ({"CreationTime": datetime(2026, 1, 1)}, "a time needs its zone"),  # noqa: DTZ001
        ({"ProductionVariants": {}}, "a list is due, not dict"),
        ({"ProductionVariants": [{}]}, "needs VariantName"),
        ({"ProductionVariants": [{"VariantName": "v", "CurrentWeight": "1"}]}, "a float is due, not str"),
        ({"ProductionVariants": [{"VariantName": "v", "CurrentInstanceCount": True}]}, "an? integer is due"),
        (
            {"ProductionVariants": [{"VariantName": "v", "CurrentInstanceCount": 1 << 31}]},
            "not a 32-bit integer",
        ),
    ],
)
def test_an_answer_that_does_not_fit_is_our_bug(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ShapeError, match=problem):
        serialize("DescribeEndpoint", ENDPOINT | change)


def test_members_of_an_operation_without_output_are_our_bug() -> None:
    with pytest.raises(ShapeError):
        serialize("DeleteEndpoint", {"EndpointName": "e"})


def test_a_protocol_that_is_not_spoken_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        protocols.load("ec2")
