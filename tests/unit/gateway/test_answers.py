"""The words of model errors: what clients parse, within the lengths the model allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.domain.routes import EndpointKey, EndpointRoute
from clary.gateway.answers import failed_model, timed_out_model, unreadable_model
from clary.gateway.plans import EndpointPlan

ROUTE = EndpointRoute(EndpointKey("111122223333", "us-east-1", "my-ep"), "My-Ep", "uid", 1, ())
ENDPOINT = EndpointPlan(ROUTE, [])
WHERE = (
    "See https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#logEventViewer:group="
    "/aws/sagemaker/Endpoints/My-Ep in account 111122223333 for more information."
)


def test_H05_a_server_error_of_the_model() -> None:
    fault = failed_model(ENDPOINT, "container_1", 500, b"boom")
    assert (fault.code, fault.status) == ("ModelError", 424)
    assert fault.message == f'Received server error (500) from container_1 with message "boom". {WHERE}'
    assert fault.members == {
        "ErrorCode": "INTERNAL_FAILURE_FROM_MODEL",
        "LogStreamArn": "arn:aws:logs:us-east-1:111122223333:log-group:/aws/sagemaker/Endpoints/My-Ep",
        "OriginalMessage": "boom",
        "OriginalStatusCode": 500,
    }


def test_H05_a_client_error_of_the_model() -> None:
    fault = failed_model(ENDPOINT, "primary", 415, b"no such type")
    assert fault.message.startswith(
        'Received client error (415) from primary with message "no such type". See '
    )
    assert fault.members["ErrorCode"] == "CLIENT_ERROR_FROM_MODEL"


def test_H05_a_model_that_takes_too_long() -> None:
    fault = timed_out_model(ENDPOINT, "primary")
    assert fault.message == (
        'Received server error (0) from primary with message "Your invocation timed out while waiting for a '
        "response from container primary. Review the latency metrics for each container in Amazon CloudWatch, "
        f'resolve the issue, and try again.". {WHERE}'
    )
    assert fault.members["OriginalStatusCode"] == 0


def test_H05_a_model_whose_answer_cannot_be_read() -> None:
    fault = unreadable_model(ENDPOINT, "primary")
    assert fault.message == (
        f"Received server error (500) from primary and could not load the entire response body. {WHERE}"
    )


@given(st.binary(max_size=20_000), st.integers(300, 999))
def test_H05_whatever_the_model_says_fits(body: bytes, status: int) -> None:
    fault = failed_model(ENDPOINT, "primary", status, body)
    assert len(fault.message) <= 2048
    assert len(fault.members["OriginalMessage"]) <= 2048
    assert fault.message.endswith(WHERE)


@pytest.mark.parametrize("length", [2047, 2048, 2049, 100_000])
def test_H05_a_long_message_keeps_its_beginning(length: int) -> None:
    body = bytes(range(33, 123)) * (length // 90 + 1)
    fault = failed_model(ENDPOINT, "primary", 500, body[:length])
    assert fault.members["OriginalMessage"] == body[: min(length, 2048)].decode()
