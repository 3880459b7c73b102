"""The refusals of the runtime operations, in SageMaker's words (clients and people match on them)."""

from clary.domain.arns import endpoint_log_group, log_group_arn
from clary.domain.faults import Fault
from clary.gateway.plans import EndpointPlan
from clary.wire.exchange import Exchange
from clary.wire.faults import serialize_fault
from clary.wire.heads import encode_fields
from clary.wire.identify import Identified

RUNTIME = Identified("sagemaker-runtime", "rest-json", signing_name="sagemaker")

_LONGEST_TEXT = 2048


def send_fault(exchange: Exchange, fault: Fault, request_id: str, identified: Identified = RUNTIME) -> None:
    """Answers with the fault in the protocol's own form."""
    head = exchange.head
    response = serialize_fault(
        identified, fault, request_id, method=head.method.decode(), resource=head.path.decode("latin-1")
    )
    assert isinstance(response.body, bytes), "a fault's body is whole"
    exchange.respond(response.status, encode_fields(response.headers), response.body)


def invalid(message: str, status: int = 400) -> Fault:
    return Fault("ValidationError", message, status)


def unavailable(message: str) -> Fault:
    return Fault("ServiceUnavailable", message, 503)


def unknown_endpoint(name: str, account: str) -> Fault:
    return invalid(f"Endpoint {name} of account {account} not found.")


def unknown_variant(endpoint: EndpointPlan, variant: str) -> Fault:
    return invalid(
        f"Variant {variant} of endpoint {endpoint.name} of account {endpoint.key.account} not found."
    )


def not_multi_model(endpoint: EndpointPlan) -> Fault:
    return Fault(
        "ValidationError",
        f"Endpoint {endpoint.name} is not a multi-model endpoint and does not support target model header.",
        members={"ErrorCode": "TARGET_MODEL_HEADER_NOT_SUPPORTED"},
    )


def not_multi_container(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} is not a multi-container endpoint with direct invocation and does not support "
        "target container hostname header."
    )


def no_components(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} does not host inference components and does not support inference component "
        "name header."
    )


def failed_model(endpoint: EndpointPlan, container: str, status: int, body: bytes) -> Fault:
    """The container answered, and not with success."""
    original = body[: 4 * _LONGEST_TEXT].decode("utf-8", "replace")
    return _model_error(endpoint, container, status, original, 'with message "', '".')


def timed_out_model(endpoint: EndpointPlan, container: str) -> Fault:
    original = (
        f"Your invocation timed out while waiting for a response from container {container}. Review the latency "
        "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    return _model_error(endpoint, container, 0, original, 'with message "', '".')


def unreadable_model(endpoint: EndpointPlan, container: str) -> Fault:
    """The container's answer ended early, or is no HTTP."""
    return _model_error(endpoint, container, 500, "", "and could not load the entire response body.", "")


def _model_error(
    endpoint: EndpointPlan, container: str, status: int, original: str, before: str, after: str
) -> Fault:
    by_client = 400 <= status < 500
    account, region, _ = endpoint.key
    group = endpoint_log_group(endpoint.name)
    start = f"Received {'client' if by_client else 'server'} error ({status}) from {container} {before}"
    end = (
        f"{after} See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
        f"#logEventViewer:group={group} in account {account} for more information."
    )
    shown = original[: max(0, _LONGEST_TEXT - len(start) - len(end))]
    return Fault(
        "ModelError",
        start + shown + end,
        424,
        members={
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if by_client else "INTERNAL_FAILURE_FROM_MODEL",
            "LogStreamArn": log_group_arn(region, account, group),
            "OriginalMessage": original[:_LONGEST_TEXT],
            "OriginalStatusCode": status,
        },
    )
