"""What DescribeEndpoint shows, made from the rows of an endpoint and its instances: what is wanted and what is so."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import cast

from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Variant
from clary.domain.places import InstanceRow
from clary.services.sagemaker import data_capture, variant_statuses
from clary.store import Resource
from clary.wire.shapes import sagemaker as shapes

_UNKNOWN_FOR = timedelta(seconds=5)
_LONGEST_MESSAGE = 1024


def describe(endpoint: Resource, rows: Iterable[InstanceRow], now: datetime) -> shapes.DescribeEndpointOutput:
    """`rows` are needed only while something is in progress."""
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
        answer["ProductionVariants"] = [_variant(v, spec, state, now) for v in state.fleet.variants]
        if state.fleet.shadows:
            answer["ShadowProductionVariants"] = [_variant(v, spec, state, now) for v in state.fleet.shadows]
    if endpoint.status in _DEPLOYING and _is_new_deployment(spec.fleet, state.fleet):
        answer["PendingDeploymentSummary"] = _pending_summary(spec, state, rows)
    if (capture := shown.capture or shown.stopped_capture) is not None:
        answer["DataCaptureConfig"] = data_capture.summary(capture, is_on=shown.capture is not None)
    if state.used_deployment_config is not None:
        answer["LastDeploymentConfig"] = cast(shapes.DeploymentConfig, state.used_deployment_config)
    # A creation that failed shows its reason only once everything of it is gone.
    if state.problem is not None and endpoint.status != "Creating":
        answer["FailureReason"] = state.problem.reason
    return answer


_DEPLOYING = ("Creating", "Updating", "RollingBack")


def settles_soon(endpoint: Resource, now: datetime) -> bool:
    """Whether the status shown now is about to be replaced by a final one: a deletion, or a warm start.

    While nobody knows yet how long a new deployment will take, it counts as a warm one for a moment. One that waits
    somewhere, to be watched or to be able to go back, never settles soon.
    """
    if endpoint.status == "Deleting":
        return True
    if endpoint.status not in ("Creating", "Updating"):
        return False
    spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
    if state.problem is not None:
        return True  # only what is left of it has to go
    if spec.deployment_id and (spec.policy.wait_s or spec.policy.termination_wait_s):
        return False
    if state.outlook == "unknown":
        return now - spec.deployment_started_at < _UNKNOWN_FOR
    return state.outlook == "soon"


def _is_new_deployment(wanted: Fleet, live: Fleet | None) -> bool:
    return live is None or wanted.id != live.id


def _variant(
    variant: Variant, spec: EndpointSpec, state: EndpointState, now: datetime
) -> shapes.ProductionVariantSummary:
    """`Desired…` follows the call at once, `Current…` when it is in force."""
    is_same_fleet = state.fleet is not None and spec.fleet.id == state.fleet.id
    wanted = (_named(spec.fleet, variant.name) if is_same_fleet else None) or variant
    mixed = state.deployment or state.leftover
    kept = {} if mixed is None else mixed.retained
    summary: shapes.ProductionVariantSummary = {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": wanted.weight,
        "CurrentInstanceCount": kept.get(variant.name, variant.count),
        "DesiredInstanceCount": wanted.count,
    }
    summary["DeployedImages"] = [
        _deployed(image, resolved, state)
        for image, resolved in zip(_images(variant), _resolved(variant, state), strict=True)
    ]
    if wanted != variant:
        summary["VariantStatus"] = [{"Status": "Updating", "StartTime": spec.deployment_started_at}]
    elif not is_same_fleet and (statuses := variant_statuses.of_blue(variant, spec, state, now)):
        summary["VariantStatus"] = statuses
    elif trouble := state.troubles.get(variant.name):
        summary["VariantStatus"] = [{"Status": "Updating", "StatusMessage": trouble[:_LONGEST_MESSAGE]}]
    if variant.shows_routing:
        summary["RoutingConfig"] = {"RoutingStrategy": variant.routing}
    return summary


def _images(variant: Variant) -> list[str]:
    """Of all its containers, in their order."""
    return [each.image for each in variant.containers] or [variant.image]


def _resolved(variant: Variant, state: EndpointState) -> list[str]:
    return [state.images.get(key, "") for key in variant.image_keys]


def _deployed(image: str, resolved: str, state: EndpointState) -> shapes.DeployedImage:
    shown: shapes.DeployedImage = {"SpecifiedImage": image}
    if resolved:
        shown["ResolvedImage"] = resolved
    if state.deployed_at is not None:
        shown["ResolutionTime"] = state.deployed_at
    return shown


def _named(fleet: Fleet, name: str) -> Variant | None:
    return next((variant for variant in (*fleet.variants, *fleet.shadows) if variant.name == name), None)


def _pending_summary(
    spec: EndpointSpec, state: EndpointState, rows: Iterable[InstanceRow]
) -> shapes.PendingDeploymentSummary:
    fleet = spec.fleet
    ready = Counter(
        row.slot.variant
        for row in rows
        if row.slot.fleet == fleet.id and row.is_wanted and row.phase == "ready"
    )
    summary: shapes.PendingDeploymentSummary = {
        "EndpointConfigName": fleet.config_name,
        "StartTime": spec.deployment_started_at,
        "ProductionVariants": [_pending(v, spec, state, ready[v.name]) for v in fleet.variants],
    }
    if fleet.shadows:
        summary["ShadowProductionVariants"] = [_pending(v, spec, state, ready[v.name]) for v in fleet.shadows]
    return summary


def _pending(
    variant: Variant, spec: EndpointSpec, state: EndpointState, ready: int
) -> shapes.PendingProductionVariantSummary:
    """`CurrentWeight` grows with the share of the traffic that the new instances take."""
    activated = 0 if state.deployment is None else state.deployment.activated.get(variant.name, 0)
    summary: shapes.PendingProductionVariantSummary = {
        "VariantName": variant.name,
        "DeployedImages": [{"SpecifiedImage": image} for image in _images(variant)],
        "CurrentWeight": variant.weight * min(1.0, activated / variant.count),
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": ready,
        "DesiredInstanceCount": variant.count,
        "InstanceType": variant.instance_type,
        "VariantStatus": variant_statuses.of_green(variant, spec, state),
    }
    if variant.shows_routing:
        summary["RoutingConfig"] = {"RoutingStrategy": variant.routing}
    return summary
