"""What DescribeEndpoint shows, made from one row: what is wanted beside what is in force."""

from datetime import datetime, timedelta

from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Variant
from clary.store import Resource
from clary.wire.shapes import sagemaker as shapes

_UNKNOWN_FOR = timedelta(seconds=5)


def describe(endpoint: Resource) -> shapes.DescribeEndpointOutput:
    spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
    shown = state.fleet or spec.fleet
    answer: shapes.DescribeEndpointOutput = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": shown.config_name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created_at,
        "LastModifiedTime": endpoint.modified_at,
    }
    if state.fleet is not None:
        answer["ProductionVariants"] = [_variant(v, spec, state) for v in state.fleet.variants]
    if endpoint.status in ("Creating", "Updating") and _is_new_deployment(spec.fleet, state.fleet):
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": spec.fleet.config_name,
            "StartTime": spec.deployment_started_at,
            "ProductionVariants": [_pending(v, spec) for v in spec.fleet.variants],
        }
    # A creation that failed shows its reason only once everything of it is gone.
    if state.problem is not None and endpoint.status != "Creating":
        answer["FailureReason"] = state.problem.reason
    return answer


def settles_soon(endpoint: Resource, now: datetime) -> bool:
    """Whether the status shown now is about to be replaced by a final one: a deletion, or a warm start.

    While nobody knows yet how long a new deployment will take, it counts as a warm one for a moment.
    """
    if endpoint.status == "Deleting":
        return True
    if endpoint.status not in ("Creating", "Updating"):
        return False
    state = endpoint.state_as(EndpointState)
    if state.problem is not None:
        return True  # only what is left of it has to go
    if state.outlook == "unknown":
        return now - endpoint.spec_as(EndpointSpec).deployment_started_at < _UNKNOWN_FOR
    return state.outlook == "soon"


def _is_new_deployment(wanted: Fleet, live: Fleet | None) -> bool:
    return live is None or wanted.id != live.id


def _variant(variant: Variant, spec: EndpointSpec, state: EndpointState) -> shapes.ProductionVariantSummary:
    """`Desired…` follows the call at once, `Current…` when it is in force."""
    is_same_fleet = state.fleet is not None and spec.fleet.id == state.fleet.id
    wanted = (spec.fleet.variant(variant.name) if is_same_fleet else None) or variant
    summary: shapes.ProductionVariantSummary = {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": wanted.weight,
        "CurrentInstanceCount": variant.count,
        "DesiredInstanceCount": wanted.count,
    }
    image: shapes.DeployedImage = {"SpecifiedImage": variant.image}
    if resolved := state.images.get(variant.name):
        image["ResolvedImage"] = resolved
    if state.deployed_at is not None:
        image["ResolutionTime"] = state.deployed_at
    summary["DeployedImages"] = [image]
    if wanted != variant:
        summary["VariantStatus"] = [{"Status": "Updating", "StartTime": spec.deployment_started_at}]
    if variant.shows_routing:
        summary["RoutingConfig"] = {"RoutingStrategy": variant.routing}
    return summary


def _pending(variant: Variant, spec: EndpointSpec) -> shapes.PendingProductionVariantSummary:
    summary: shapes.PendingProductionVariantSummary = {
        "VariantName": variant.name,
        "DeployedImages": [{"SpecifiedImage": variant.image}],
        "CurrentWeight": 0.0,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": 0,
        "DesiredInstanceCount": variant.count,
        "InstanceType": variant.instance_type,
        "VariantStatus": [{"Status": "Creating", "StartTime": spec.deployment_started_at}],
    }
    if variant.shows_routing:
        summary["RoutingConfig"] = {"RoutingStrategy": variant.routing}
    return summary
