"""VariantStatus: in which stage of a deployment a variant is, in SageMaker's words; empty while nothing happens."""

from datetime import datetime, timedelta

from clary.domain.deployments import Deployment, DeploymentPolicy
from clary.domain.endpoints import EndpointSpec, EndpointState, Variant
from clary.wire.shapes import sagemaker as shapes

_SHIFTED = {"CANARY": "canary", "LINEAR": "linear", "ROLLING": "batch"}


def of_green(
    variant: Variant, spec: EndpointSpec, state: EndpointState
) -> list[shapes.ProductionVariantStatus]:
    """Of a variant of the fleet that is deployed."""
    deployment, policy = state.deployment, spec.policy
    if deployment is None:
        return [{"Status": "Creating", "StartTime": spec.deployment_started_at}]
    status: shapes.ProductionVariantStatus = {
        "Status": "Creating",
        "StartTime": deployment.stage_since or deployment.started_at,
    }
    capacity = _capacity(variant, policy, deployment)
    match deployment.stage:
        case "activating":
            status["Status"] = "ActivatingTraffic"
            status["StatusMessage"] = f"Activating traffic on {capacity}."
        case "baking":
            status["Status"] = "Baking"
            status["StatusMessage"] = _baking(policy.wait_s, "WaitIntervalInSeconds", capacity)
        case "terminating":
            status["Status"] = "Baking"
            status["StatusMessage"] = _baking(policy.termination_wait_s, "TerminationWaitInSeconds", capacity)
        case "rolling-back":
            status["Status"] = "Deleting"
            status["StatusMessage"] = "Rolling back: all traffic goes to the previous fleet."
    return [status]


def of_blue(
    variant: Variant, spec: EndpointSpec, state: EndpointState, now: datetime
) -> list[shapes.ProductionVariantStatus]:
    """Of a variant of the fleet in force, while another is deployed."""
    deployment = state.deployment
    if deployment is None:
        return []
    since = deployment.stage_since or deployment.started_at
    if deployment.stage == "rolling-back":
        return [
            {
                "Status": "ActivatingTraffic",
                "StatusMessage": "Rolling back: all traffic comes back to this fleet.",
                "StartTime": since,
            }
        ]
    goes_at = since + timedelta(seconds=spec.policy.termination_wait_s)
    if deployment.stage == "terminating" and now >= goes_at:
        return [{"Status": "Deleting", "StartTime": goes_at}]
    if variant.name in deployment.retained and deployment.retained[variant.name] < variant.count:
        return [{"Status": "Deleting", "StartTime": since}]
    return []


def _capacity(variant: Variant, policy: DeploymentPolicy, deployment: Deployment) -> str:
    activated = deployment.activated.get(variant.name, 0)
    word = "full" if activated >= variant.count else _SHIFTED.get(policy.strategy, "partial")
    return f"{word} capacity of {activated} instance(s)"


def _baking(seconds: float, member: str, capacity: str) -> str:
    return f"Baking for {seconds:.0f} seconds ({member}) with traffic enabled on {capacity}."
