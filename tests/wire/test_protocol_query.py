"""The query protocol: forms in, XML out."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.wire import protocols
from clary.wire.messages import Request
from clary.wire.models import ServiceModels

MODELS = ServiceModels()


def parse(service: str, name: str, form: str | bytes, query: str = "") -> dict[str, Any]:
    operation = MODELS.service(service).operation(name)
    body = form.encode() if isinstance(form, str) else form
    return protocols.load("query").parse(operation, Request("POST", "/", query, {}, body))


def serialize(service: str, name: str, members: dict[str, Any] | None) -> str:
    operation = MODELS.service(service).operation(name)
    body = protocols.load("query").serialize(operation, members, request_id="r").body
    assert isinstance(body, bytes)
    return body.decode()


def test_structures_and_lists_are_spelled_with_dots() -> None:
    form = urlencode(
        {
            "Action": "GetMetricStatistics",
            "Version": "2010-08-01",
            "Namespace": "AWS/SageMaker",
            "MetricName": "Invocations",
            "Dimensions.member.2.Name": "VariantName",
            "Dimensions.member.2.Value": "b & c",
            "Dimensions.member.1.Name": "EndpointName",
            "Dimensions.member.1.Value": "e",
            "StartTime": "2026-01-01T00:00:00Z",
            "Period": "60",
            "Statistics.member.10": "Sum",
            "Statistics.member.9": "Average",
            "Colour": "red",
        }
    )
    assert parse("cloudwatch", "GetMetricStatistics", form) == {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocations",
        "Dimensions": [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "b & c"}],
        "StartTime": datetime(2026, 1, 1, tzinfo=UTC),
        "Period": 60,
        "Statistics": ["Average", "Sum"],
    }


def test_parameters_may_stand_in_the_query() -> None:
    assert parse("iam", "GetRole", "", "Action=GetRole&RoleName=r") == {"RoleName": "r"}


def test_an_empty_list_is_said_by_its_bare_name() -> None:
    assert parse("cloudwatch", "ListMetrics", "Dimensions=") == {"Dimensions": []}


@pytest.mark.parametrize(
    "form",
    [
        "Period=sixty",
        "Period=" + "9" * 5000,
        "StartTime=soon",
        "Dimensions.member.x.Name=a",
        "Dimensions.member.0.Name=a",
        "Dimensions.member.-1.Name=a",
        "Dimensions.member.1." + "a." * 100 + "Name=a",
        b"Namespace=%ff",
        b"Namespace=\xff",
    ],
)
def test_a_malformed_form_is_refused(form: str | bytes) -> None:
    with pytest.raises(Fault) as caught:
        parse("cloudwatch", "GetMetricStatistics", form)
    assert (caught.value.code, caught.value.status) == ("MalformedInput", 400)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=100)
    | st.lists(
        st.tuples(
            st.from_regex(r"(MetricData|Dimensions|member|[0-9]|Name|\.){1,8}", fullmatch=True), st.text()
        )
    )
    .map(urlencode)
    .map(str.encode)
)
def test_no_form_is_worse_than_malformed(form: bytes) -> None:
    try:
        parse("cloudwatch", "PutMetricData", form)
    except Fault as fault:
        assert fault.code == "MalformedInput"


def test_an_answer_stands_in_its_wrapper() -> None:
    members = {
        "UserId": "AROA:s",
        "Account": "123456789012",
        "Arn": "arn:aws:sts::123456789012:assumed-role/a<b/s",
    }
    assert serialize("sts", "GetCallerIdentity", members) == (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        "<UserId>AROA:s</UserId><Account>123456789012</Account>"
        "<Arn>arn:aws:sts::123456789012:assumed-role/a&lt;b/s</Arn></GetCallerIdentityResult>"
        "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )


def test_an_answer_without_output_has_only_its_metadata() -> None:
    assert serialize("iam", "DeleteRole", None) == (
        '<DeleteRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DeleteRoleResponse>"
    )


def test_lists_are_wrapped_and_times_are_whole_seconds() -> None:
    members = {
        "Datapoints": [{"Timestamp": datetime(2026, 1, 1, tzinfo=UTC), "Sum": 2.5, "Unit": "Count"}],
        "Label": "Invocations",
    }
    assert (
        "<Datapoints><member><Timestamp>2026-01-01T00:00:00Z</Timestamp><Sum>2.5</Sum><Unit>Count</Unit></member>"
        "</Datapoints>"
    ) in serialize("cloudwatch", "GetMetricStatistics", members)
