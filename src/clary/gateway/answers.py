"""The refusals of the runtime operations, in SageMaker's words (clients and people match on them)."""

from clary.domain.arns import endpoint_log_group, log_group_arn
from clary.domain.faults import Fault
from clary.gateway.plans import EndpointPlan, VariantPlan
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


def missing_target_model(request_id: str) -> Fault:
    return invalid(f"Request {request_id} is missing a target model header.")


def unfit_target_model(model: str, why: str) -> Fault:
    return invalid(f'The target model "{model}" cannot be the name of a model: {why}.')


def no_streams_of_models(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} is a multi-model endpoint, and InvokeEndpointWithResponseStream cannot name a "
        "target model. Use InvokeEndpoint."
    )


def model_not_loaded(endpoint: EndpointPlan, variant: VariantPlan, model: str, code: str, why: str) -> Fault:
    """Why a target model cannot be called; codes are those of `links.hosts.LoadModel`."""
    if code in ("ModelMissing", "ModelDenied"):
        bucket, _, prefix = variant.models.removeprefix("s3://").partition("/")
        return invalid(
            f"Failed to download model data(bucket: {bucket}, key: {prefix}{model}). Please ensure that there is an "
            "object located at the URL and that the role passed to CreateModel has permissions to download the "
            "model."
        )
    if code == "ModelInvalid":
        return failed_model(endpoint, variant.container, 500, why.encode())
    if code == "NoRoom":
        return failed_model(endpoint, variant.container, 507, why.encode())
    if code == "ModelTimeout":
        return Fault(
            "ModelNotReadyException",
            f'The model "{model}" of endpoint {endpoint.name} is still downloading or loading. Wait and try your '
            "request again.",
            429,
        )
    if code == "HostUnavailable":
        return unavailable(
            f'The model "{model}" of endpoint {endpoint.name} is not loaded, and the process that loads models is not '
            "there. Models that are loaded go on answering. Try again."
        )
    return unavailable(f'The model "{model}" of endpoint {endpoint.name} could not be loaded: {why}')


def not_multi_container(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} is not a multi-container endpoint with direct invocation and does not support "
        "target container hostname header."
    )


def no_container_named(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} is a multi-container endpoint with direct invocation and the request is missing a "
        f"target container hostname header. {_containers_of(endpoint)}"
    )


def unknown_container(endpoint: EndpointPlan, container: str) -> Fault:
    return invalid(
        f"Container {container} of endpoint {endpoint.name} of account {endpoint.key.account} not found. "
        f"{_containers_of(endpoint)}"
    )


def _containers_of(endpoint: EndpointPlan) -> str:
    names = {name: "" for variant in endpoint.route.variants for name in variant.containers}
    return f"Specify one of these as the TargetContainerHostname: {', '.join(names)}."


def no_sessions(endpoint: EndpointPlan) -> Fault:
    return invalid(
        f"Endpoint {endpoint.name} is an inference pipeline and does not support stateful sessions: which of its "
        "containers would hold one is not defined. Leave SessionId out."
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
