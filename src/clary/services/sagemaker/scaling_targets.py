"""Scalable targets of Application Auto Scaling, as far as operations on endpoints must mind them."""

from clary.domain.endpoints import Fleet
from clary.domain.faults import Fault, validation
from clary.domain.scaling import SCALABLE_TARGET_KIND, resource_id
from clary.store import Resource, Transaction


def require_deregistered(tx: Transaction, endpoint: Resource, live: Fleet, fleet: Fleet) -> None:
    """Raises SageMaker's refusal when a variant that is scaled would go, or get another instance type."""
    concerned = [
        variant.name
        for variant in live.variants
        if (wanted := fleet.variant(variant.name)) is None or wanted.instance_type != variant.instance_type
    ]
    scaled = [name for name in concerned if _target(tx, endpoint, name) is not None]
    if scaled:
        raise validation(
            f'The variant(s) "[{", ".join(scaled)}]" must be deregistered as scalable targets with AWS Auto Scaling '
            "before they can be removed or have their instance type updated."
        )


def targets_of(tx: Transaction, endpoint: Resource, fleet: Fleet) -> list[Resource]:
    found = (_target(tx, endpoint, variant.name) for variant in fleet.variants)
    return [target for target in found if target is not None]


def may_not_deregister() -> Fault:
    return validation(
        "An Application AutoScaling scalable target exists for a variant being deleted, and the IAM identity used to "
        "invoke DeleteEndpoint does not have application-autoscaling:DeregisterScalableTarget permission to deregister "
        "the scalable target."
    )


def _target(tx: Transaction, endpoint: Resource, variant: str) -> Resource | None:
    name = resource_id(endpoint.name, variant)
    return tx.resources.find(endpoint.account, endpoint.region, SCALABLE_TARGET_KIND, name)
