"""Which service a request is for, and how refusals look in each protocol, as botocore reads them."""

import json
from typing import Any

import pytest
from botocore import parsers

from clary.domain.faults import Fault, access_denied, internal, throttled, validation
from clary.wire.faults import http_refusal, serialize_fault, unknown_operation, unsupported_operation
from clary.wire.heads import Head
from clary.wire.identify import Identified, identify
from clary.wire.messages import Response


def a_head(method: str = "POST", target: str = "/", scope: str = "", **headers: str) -> Head:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    if scope:
        named[b"authorization"] = (
            f"AWS4-HMAC-SHA256 Credential=A/20261121/us-east-1/{scope}/aws4_request, SignedHeaders=host, Signature=0"
        ).encode()
    return Head(method.encode(), target.encode(), named)


FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.mark.parametrize(
    ("head", "form", "expected"),
    [
        (a_head(x_amz_target="SageMaker.ListModels"), b"", ("sagemaker", "json", "ListModels")),
        (a_head(x_amz_target="Logs_20140328.GetLogEvents"), b"", ("logs", "json", "GetLogEvents")),
        (
            a_head(x_amz_target="GraniteServiceVersion20100801.ListMetrics"),
            b"",
            ("cloudwatch", "json", "ListMetrics"),
        ),
        (a_head(x_amz_target="Other.Thing"), b"", ("", "json", "Thing")),
        (
            a_head(target="/endpoints/e/invocations", scope="sagemaker"),
            b"",
            ("sagemaker-runtime", "rest-json", None),
        ),
        (a_head(target="/endpoints/e/invocations"), b"", ("sagemaker-runtime", "rest-json", None)),
        (a_head("GET", "/endpoints/key", scope="s3"), b"", ("s3", "rest-xml", None)),
        (a_head("PUT", "/BatchPutMetrics", scope="sagemaker"), b"", ("", "rest-json", None)),
        (
            a_head(scope="sts", content_type=FORM),
            b"Action=GetCallerIdentity&Version=2011-06-15",
            ("sts", "query", "GetCallerIdentity"),
        ),
        (a_head(content_type=FORM), b"Action=GetRole&Version=2010-05-08", ("iam", "query", "GetRole")),
        (
            a_head("GET", "/?Action=GetCallerIdentity&Version=2011-06-15"),
            b"",
            ("sts", "query", "GetCallerIdentity"),
        ),
        (
            a_head("GET", "/b/k?X-Amz-Credential=A%2F20261121%2Fr%2Fs3%2Faws4_request"),
            b"",
            ("s3", "rest-xml", None),
        ),
        (a_head("GET", "/bucket"), b"", ("s3", "rest-xml", None)),
        (a_head("GET", "/_clary/status", scope="clary"), b"", ("clary", "rest-json", None)),
        (a_head(scope="ecr"), b"", ("", "json", None)),
    ],
)
def test_a_request_is_identified(head: Head, form: bytes, expected: tuple[str, str, str | None]) -> None:
    found = identify(head, form)
    assert (found.service, found.protocol, found.operation) == expected


JSON = Identified("sagemaker", "json", "CreateModel", "sagemaker")
METRICS = Identified(
    "cloudwatch", "json", "ListMetrics", "monitoring", is_query_mode=True, json_version="1.0"
)
RUNTIME = Identified("sagemaker-runtime", "rest-json", None, "sagemaker")
STS = Identified("sts", "query", "GetCallerIdentity", "sts")
S3 = Identified("s3", "rest-xml", None, "s3")


def parsed(identified: Identified, response: Response) -> dict[str, Any]:
    """The error as a client sees it."""
    parser = parsers.create_parser("json" if identified.protocol == "json" else identified.protocol)
    headers = {name.lower(): value for name, value in response.headers}
    shape: Any = None
    result: dict[str, Any] = parser.parse(
        {"body": response.body, "headers": headers, "status_code": response.status}, shape
    )
    return result


@pytest.mark.parametrize(
    ("identified", "fault", "code", "status"),
    [
        (JSON, validation("no"), "ValidationException", 400),
        (JSON, access_denied("no"), "AccessDeniedException", 403),
        (RUNTIME, validation("no"), "ValidationError", 400),
        (STS, validation("no"), "ValidationError", 400),
        (STS, access_denied("no"), "AccessDenied", 403),
        (S3, access_denied("no"), "AccessDenied", 403),
        (S3, Fault("NoSuchKey", "no", 404), "NoSuchKey", 404),
        (S3, Fault("InvalidSignatureException", "no", 403), "SignatureDoesNotMatch", 403),
        (STS, Fault("InvalidSignatureException", "no", 403), "SignatureDoesNotMatch", 403),
        (STS, Fault("UnrecognizedClientException", "no", 403), "InvalidClientTokenId", 403),
        (METRICS, Fault("InvalidParameterValue", "no", 400), "InvalidParameterValue", 400),
    ],
)
def test_a_fault_arrives_as_its_protocol_names_it(
    identified: Identified, fault: Fault, code: str, status: int
) -> None:
    response = serialize_fault(identified, fault, "rid-1")
    result = parsed(identified, response)
    assert result["Error"]["Code"] == code
    assert result["Error"]["Message"] == "no"
    assert response.status == status
    assert "rid-1" in str(response.headers)


def test_s3_has_its_own_words_for_throttling_expiry_and_failure() -> None:
    codes = {
        code: (parsed(S3, response)["Error"]["Code"], response.status)
        for code, response in (
            (fault.code, serialize_fault(S3, fault, "r"))
            for fault in (throttled(), internal(), Fault("ExpiredTokenException", "x", 403))
        )
    }
    assert codes == {
        "ThrottlingException": ("SlowDown", 503),
        "InternalFailure": ("InternalError", 500),
        "ExpiredTokenException": ("ExpiredToken", 400),
    }


def test_query_mode_carries_the_query_code_as_well() -> None:
    response = serialize_fault(METRICS, Fault("InvalidParameterValue", "no"), "r")
    assert ("x-amzn-query-error", "InvalidParameterValue;Sender") in response.headers


def test_a_model_error_keeps_its_members_and_its_status() -> None:
    fault = Fault("ModelError", "it broke", 424, members={"OriginalStatusCode": 500, "OriginalMessage": "x"})
    response = serialize_fault(RUNTIME, fault, "r")
    assert response.status == 424
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "Message": "it broke",
        "OriginalStatusCode": 500,
        "OriginalMessage": "x",
    }


def test_head_and_304_answers_have_no_body() -> None:
    assert serialize_fault(S3, Fault("NoSuchKey", "no", 404), "r", method="HEAD").body == b""
    assert serialize_fault(S3, Fault("NotModified", "no", 304), "r").body == b""


def test_a_message_cannot_break_out_of_its_markup() -> None:
    nasty = "</Message><Code>\0\x1b&amp;\ud800"
    for identified in (S3, STS):
        result = parsed(identified, serialize_fault(identified, Fault("NoSuchKey", nasty), "r"))
        assert result["Error"]["Message"].startswith("</Message><Code>")
        assert result["Error"]["Code"] == "NoSuchKey"


@pytest.mark.parametrize(
    ("identified", "code", "status"),
    [
        (JSON, "UnknownOperationException", 400),
        (RUNTIME, "UnknownOperationException", 404),
        (STS, "InvalidAction", 400),
        (S3, "NotImplemented", 501),
    ],
)
def test_an_unknown_operation_is_refused_in_its_protocol(
    identified: Identified, code: str, status: int
) -> None:
    response = serialize_fault(identified, unknown_operation(identified), "r")
    assert (parsed(identified, response)["Error"]["Code"], response.status) == (code, status)


def test_an_operation_not_built_is_refused_by_name() -> None:
    for identified in (JSON, RUNTIME, STS, S3):
        fault = unsupported_operation(identified, "CreateThing")
        message = parsed(identified, serialize_fault(identified, fault, "r"))["Error"]["Message"]
        assert message == "CreateThing is not supported by this server"


def test_what_the_http_server_refuses_is_json() -> None:
    fields, body = http_refusal(431, "too large")
    assert json.loads(body)["message"] == "too large" and b"application/json" in fields


@pytest.mark.parametrize(
    ("operation", "absence", "code", "words"),
    [
        ("DescribeTrainingJob", "ResourceNotFound", "ValidationException", "Requested resource not found."),
        ("DescribeTransformJob", "ResourceNotFound", "ValidationException", "Requested resource not found."),
        ("DescribeProcessingJob", "ResourceNotFound", "ValidationException", "Could not find requested job"),
        ("DescribeNotebookInstance", None, "ValidationException", "RecordNotFound"),
        ("DescribePipeline", "ResourceNotFound", "ResourceNotFound", "There is no such resource"),
        (
            "CreateTrainingJob",
            None,
            "ValidationException",
            "CreateTrainingJob is not supported by this server",
        ),
    ],
)
def test_what_is_not_built_is_not_found_in_the_words_of_its_api(
    operation: str, absence: str | None, code: str, words: str
) -> None:
    fault = unsupported_operation(Identified("sagemaker", "json", operation), operation, absence)
    assert fault.code == code
    assert fault.message.startswith(words)
    assert fault.message.endswith(f"{operation} is not supported by this server")
