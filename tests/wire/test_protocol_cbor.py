"""RPC v2 CBOR: what is malformed, what an answer looks like, and that tags make no objects."""

from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.wire import protocols
from clary.wire.faults import serialize_fault
from clary.wire.heads import Head
from clary.wire.identify import identify
from clary.wire.messages import Request, Response
from clary.wire.models import ServiceModels
from clary.wire.protocols.base import ShapeError

MODELS = ServiceModels()
NAME = "smithy-rpc-v2-cbor"
PATH = "/service/GraniteServiceVersion20100801/operation/PutMetricData"


def parse(body: bytes, name: str = "PutMetricData") -> dict[str, Any]:
    operation = MODELS.service("cloudwatch").operation(name)
    return protocols.load(NAME).parse(operation, Request("POST", PATH, "", {}, body))


def serialize(name: str, members: dict[str, Any] | None) -> Response:
    operation = MODELS.service("cloudwatch").operation(name)
    return protocols.load(NAME).serialize(operation, members, request_id="r")


def head(path: str = PATH, **headers: bytes) -> Head:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Head(b"POST", path.encode(), {b"smithy-protocol": b"rpc-v2-cbor", **named})


def datum(**members: Any) -> bytes:
    return cbor2.dumps({"Namespace": "n", "MetricData": [{"MetricName": "m", **members}]})


def test_Z01_a_request_is_read_by_its_shapes() -> None:
    body = datum(Value=1, Timestamp=cbor2.CBORTag(1, 1767225600.5), Counts=[1.0, 2], Unknown={"x": 1})
    read = parse(body)["MetricData"][0]
    assert read == {
        "MetricName": "m",
        "Value": 1.0,
        "Timestamp": datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
        "Counts": [1.0, 2.0],
    }
    assert parse(b"") == {}


def test_lengths_that_are_not_told_are_understood() -> None:
    assert parse(b"\xbf\x69Namespace\x7f\x62ab\x61c\xff\xff") == {"Namespace": "abc"}


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"\x81" * 500,
        b"\x81\x01",
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
        datum(Value="1"),
        datum(Value=True),
        datum(MetricName=1),
        datum(Timestamp=1767225600),
        datum(Timestamp=cbor2.CBORTag(1, float("nan"))),
        datum(StorageResolution=1 << 40),
        datum(Dimensions={"Name": "a"}),
        datum(StatisticValues=[1]),
        b"\xa1\x69Namespace\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
        b"\xa1\x69Namespace\xd8\x23\x62.*",  # a regular expression
        b"\xa1\x69Namespace\xc2\x41\x01",  # a number of any length
    ],
)
def test_what_is_malformed_is_refused(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        parse(body)
    assert (caught.value.code, caught.value.status) == ("SerializationException", 400)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_are_too_odd(body: bytes) -> None:
    try:
        assert isinstance(parse(body), dict)
    except Fault as fault:
        assert fault.code == "SerializationException"


def test_Z01_an_answer_is_a_map_with_times_under_tag_1() -> None:
    at = datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    result = {"Id": "a", "Timestamps": [at], "Values": [1.0], "StatusCode": "Complete"}
    response = serialize("GetMetricData", {"MetricDataResults": [result]})
    headers = {name.lower(): value for name, value in response.headers}
    assert (headers["smithy-protocol"], headers["content-type"]) == ("rpc-v2-cbor", "application/cbor")
    assert isinstance(response.body, bytes)
    assert cbor2.loads(response.body)["MetricDataResults"][0]["Timestamps"] == [at]
    assert serialize("PutMetricData", None).body == b""
    with pytest.raises(ShapeError):
        serialize("GetMetricData", {"Nonsense": 1})


def test_the_path_names_service_and_operation() -> None:
    found = identify(head())
    assert (found.service, found.protocol, found.operation) == ("cloudwatch", NAME, "PutMetricData")
    assert found.signing_name == "monitoring"
    assert identify(head("/service/Unknown/operation/X")).service == ""
    assert identify(head("/elsewhere")).operation is None


def test_a_fault_is_cbor_with_the_older_code_in_a_header() -> None:
    fault = Fault("InvalidParameterValue", "no")
    found = identify(head(x_amzn_query_mode=b"true"))
    response = serialize_fault(found, fault, "r")
    assert isinstance(response.body, bytes)
    assert cbor2.loads(response.body) == {"__type": "InvalidParameterValueException", "message": "no"}
    headers = dict(response.headers)
    assert headers["x-amzn-query-error"] == "InvalidParameterValue;Sender"
    assert headers["smithy-protocol"] == "rpc-v2-cbor"
