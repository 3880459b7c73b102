"""Scalable targets: which variants are scaled, and between which limits."""

from collections.abc import Callable
from dataclasses import replace

from clary.domain.clock import Clock
from clary.domain.endpoints import EndpointSpec, EndpointState, Variant
from clary.domain.faults import Fault, not_supported, validation
from clary.domain.resources import ENDPOINT
from clary.domain.scaling import (
    INSTANCE_COUNT,
    NAMESPACE,
    SCALABLE_TARGET_KIND,
    ScalableTarget,
    Suspended,
    TargetState,
    VariantName,
    parse_resource_id,
    target_arn,
)
from clary.services.application_autoscaling import kinds
from clary.services.application_autoscaling.removal import deregister
from clary.store import DuplicateName, Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import application_autoscaling as shapes

MOST_TAGS = 50

_ROLE = (
    "arn:aws:iam::{account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)


class Targets:
    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    @operation("RegisterScalableTarget")
    def register_scalable_target(
        self, call: Call, params: shapes.RegisterScalableTargetRequest
    ) -> shapes.RegisterScalableTargetResponse:
        """Registers a variant, or changes what is given of one that is registered."""
        kinds.check_scaled(params)
        with self._store.write() as tx:
            endpoint, variant = _scaled_variant(tx, call, params["ResourceId"])
            found = kinds.find_target(tx, call, params["ResourceId"])
            before = None if found is None else found.spec_as(ScalableTarget)
            spec = _spec(call, params, before, VariantName(endpoint.name, variant.name))
            if found is None:
                found = self._insert(tx, call, spec)
                tx.tags.put(found.uid, _tags(params))
            elif "Tags" in params:
                raise validation("Tags are given when a target is registered first; later use TagResource.")
            elif spec != before:
                tx.resources.update(found, spec=spec)
            tx.work.wish(SCALABLE_TARGET_KIND, found.uid)
        return {"ScalableTargetARN": found.arn}

    @operation("DeregisterScalableTarget")
    def deregister_scalable_target(
        self, call: Call, params: shapes.DeregisterScalableTargetRequest
    ) -> shapes.DeregisterScalableTargetResponse:
        with self._store.write(on_full_disk=True) as tx:
            deregister(tx, kinds.require_target(tx, call, params, "found"))
        return {}

    @operation("DescribeScalableTargets")
    def describe_scalable_targets(
        self, call: Call, params: shapes.DescribeScalableTargetsRequest
    ) -> shapes.DescribeScalableTargetsResponse:
        wanted = {text.lower() for text in params.get("ResourceIds", [])}
        with self._store.read() as tx:
            found = kinds.all_of(tx, call, SCALABLE_TARGET_KIND, params)
        found = [target for target in found if not wanted or target.name.lower() in wanted]
        items, more = kinds.page([_shown(target) for target in found], [t.uid for t in found], params)
        answer: shapes.DescribeScalableTargetsResponse = {"ScalableTargets": items}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    def _insert(self, tx: Transaction, call: Call, spec: ScalableTarget) -> Resource:
        uid = self._new_id()
        try:
            return tx.resources.insert(
                uid=uid,
                account=call.account,
                region=call.region,
                kind=SCALABLE_TARGET_KIND,
                arn=target_arn(call.region, call.account, uid),
                name=spec.resource_id,
                status="",
                spec=spec,
                state=TargetState(),
            )
        except DuplicateName:  # another control was faster
            raise Fault("ConcurrentUpdateException", "The target is being registered already.") from None


def _scaled_variant(tx: Transaction, call: Call, resource_id: str) -> tuple[Resource, Variant]:
    """The endpoint and the variant that a ResourceId names, or the fault that says why it cannot be scaled."""
    name = parse_resource_id(resource_id)
    if name is None:
        raise kinds.unsupported()
    endpoint = tx.resources.find(call.account, call.region, ENDPOINT.name, name.endpoint)
    if endpoint is None or endpoint.status in ("Deleting", "Failed"):
        raise validation(f"SageMaker endpoint doesn't exist: {resource_id}")
    fleet = endpoint.state_as(EndpointState).fleet or endpoint.spec_as(EndpointSpec).fleet
    variant = fleet.variant(name.variant)
    if variant is None:
        known = ", ".join(each.name for each in fleet.variants)
        raise validation(
            f"SageMaker endpoint variant doesn't exist: {resource_id}; the endpoint has {known}."
        )
    if variant.instance_type.startswith("ml.t2."):
        raise validation(
            f"The instance type {variant.instance_type} of {resource_id} is burstable and cannot be scaled."
        )
    return endpoint, variant


def _spec(
    call: Call,
    params: shapes.RegisterScalableTargetRequest,
    before: ScalableTarget | None,
    name: VariantName,
) -> ScalableTarget:
    least, most = params.get("MinCapacity"), params.get("MaxCapacity")
    if before is None:
        if least is None or most is None:
            raise validation(
                "MinCapacity and MaxCapacity are required when a scalable target is registered for the first time."
            )
        role = params.get("RoleARN") or _ROLE.format(account=call.account)
        before = ScalableTarget(params["ResourceId"], name.endpoint, name.variant, least, most, role)
    spec = replace(
        before,
        min_capacity=before.min_capacity if least is None else least,
        max_capacity=before.max_capacity if most is None else most,
        role_arn=params.get("RoleARN") or before.role_arn,
        suspended=_suspended(params.get("SuspendedState", {}), before.suspended),
    )
    check_limits(spec.min_capacity, spec.max_capacity)
    return spec


def check_limits(least: int, most: int) -> None:
    """Raises for limits that no variant of a real-time endpoint can have."""
    if least < 0 or most < 0:
        raise validation("Minimum and maximum capacity cannot be negative.")
    if most < least:
        raise validation("Maximum capacity cannot be less than minimum capacity")
    if least == 0:
        raise not_supported("MinCapacity 0, which is for asynchronous endpoints,")


def _suspended(given: shapes.SuspendedState, before: Suspended) -> Suspended:
    return Suspended(
        given.get("DynamicScalingInSuspended", before.scaling_in),
        given.get("DynamicScalingOutSuspended", before.scaling_out),
        given.get("ScheduledScalingSuspended", before.scheduled),
    )


def _tags(params: shapes.RegisterScalableTargetRequest) -> dict[str, str]:
    tags = params.get("Tags", {})
    if len(tags) > MOST_TAGS:
        raise validation(f"A scalable target has at most {MOST_TAGS} tags.")
    return tags


def _shown(target: Resource) -> shapes.ScalableTarget:
    spec = target.spec_as(ScalableTarget)
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": spec.resource_id,
        "ScalableDimension": INSTANCE_COUNT,
        "MinCapacity": spec.min_capacity,
        "MaxCapacity": spec.max_capacity,
        "RoleARN": spec.role_arn,
        "CreationTime": target.created_at,
        "SuspendedState": {
            "DynamicScalingInSuspended": spec.suspended.scaling_in,
            "DynamicScalingOutSuspended": spec.suspended.scaling_out,
            "ScheduledScalingSuspended": spec.suspended.scheduled,
        },
        "ScalableTargetARN": target.arn,
    }
