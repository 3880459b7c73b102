"""Scaling policies. A target tracking policy has two alarms, made and removed with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clary.domain.alarms import ALARM_KIND, AlarmSpec, alarm_arn
from clary.domain.clock import Clock
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet
from clary.domain.faults import not_supported, validation
from clary.domain.resources import ENDPOINT
from clary.domain.scaling import (
    INSTANCE_COUNT,
    NAMESPACE,
    SCALABLE_TARGET_KIND,
    SCALING_POLICY_KIND,
    PolicyState,
    ScalableTarget,
    ScalingPolicy,
    Timing,
    Tracking,
    VariantName,
    policy_arn,
    tracking_alarms,
)
from clary.services.application_autoscaling import kinds
from clary.services.application_autoscaling.removal import remove_alarms, remove_policy
from clary.services.application_autoscaling.stepping import read_stepping
from clary.services.application_autoscaling.tracking import read_tracking
from clary.store import Resource, Store, Transaction
from clary.store.alarms import put_alarm
from clary.wire.operations import Call, operation
from clary.wire.shapes import application_autoscaling as shapes

MOST_POLICIES = 50

_CONFIGS = {
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
    "StepScaling": "StepScalingPolicyConfiguration",
}


class Policies:
    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str], timing: Timing) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._timing = timing

    @operation("PutScalingPolicy")
    def put_scaling_policy(
        self, call: Call, params: shapes.PutScalingPolicyRequest
    ) -> shapes.PutScalingPolicyResponse:
        """Makes a policy or gives the one of that name another configuration, its alarms with it."""
        kinds.check_scaled(params)
        config = _config(params)
        with self._store.write() as tx:
            target = kinds.require_target(tx, call, params, "registered")
            siblings = tx.resources.children(target.arn, SCALING_POLICY_KIND)
            before = next((p for p in siblings if _spec_of(p).name == params["PolicyName"]), None)
            if before is None and len(siblings) >= MOST_POLICIES:
                raise kinds.too_many("scaling policies", MOST_POLICIES)
            uid = self._new_id() if before is None else before.uid
            spec = _read(tx, params, config, target, uid)
            _check_metric(spec, [p for p in siblings if p.uid != uid])
            policy = self._write(tx, call, target, before, uid, spec)
            alarms = self._put_alarms(tx, policy, spec)
            tx.work.wish(SCALABLE_TARGET_KIND, target.uid)
        return {"PolicyARN": policy.arn, "Alarms": alarms}

    @operation("DeleteScalingPolicy")
    def delete_scaling_policy(
        self, call: Call, params: shapes.DeleteScalingPolicyRequest
    ) -> shapes.DeleteScalingPolicyResponse:
        with self._store.write(on_full_disk=True) as tx:
            target = kinds.require_target(tx, call, params, "found")
            for policy in tx.resources.children(target.arn, SCALING_POLICY_KIND):
                if _spec_of(policy).name == params["PolicyName"]:
                    remove_policy(tx, policy)
                    return {}
        raise kinds.object_not_found(
            f"No scaling policy found for {kinds.place(params)}, policy name: {params['PolicyName']}"
        )

    @operation("DescribeScalingPolicies")
    def describe_scaling_policies(
        self, call: Call, params: shapes.DescribeScalingPoliciesRequest
    ) -> shapes.DescribeScalingPoliciesResponse:
        names, wanted = set(params.get("PolicyNames", [])), params.get("ResourceId", "").lower()
        with self._store.read() as tx:
            found = [
                (policy, spec)
                for policy in kinds.all_of(tx, call, SCALING_POLICY_KIND, params)
                if (not names or (spec := _spec_of(policy)).name in names)
                and wanted in ("", (spec := _spec_of(policy)).resource_id.lower())
            ]
            found, more = kinds.page(found, [policy.uid for policy, _ in found], params)
            items = [_shown(tx, policy, spec) for policy, spec in found]
        answer: shapes.DescribeScalingPoliciesResponse = {"ScalingPolicies": items}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    def _write(
        self,
        tx: Transaction,
        call: Call,
        target: Resource,
        before: Resource | None,
        uid: str,
        spec: ScalingPolicy,
    ) -> Resource:
        if before is not None:
            if spec.tracking is None:
                remove_alarms(tx, before)
            return tx.resources.update(before, spec=spec)
        return tx.resources.insert(
            uid=uid,
            account=call.account,
            region=call.region,
            kind=SCALING_POLICY_KIND,
            arn=policy_arn(call.region, call.account, uid, spec.resource_id, spec.name),
            name=uid,  # names belong to a target and keep their case
            parent=target.arn,
            status="",
            spec=spec,
            state=PolicyState(),
        )

    def _put_alarms(self, tx: Transaction, policy: Resource, spec: ScalingPolicy) -> list[shapes.Alarm]:
        if spec.tracking is None:
            return []
        alarms = [
            put_alarm(tx, self._new_id(), policy.account, policy.region, alarm, self._clock.now())
            for alarm in tracking_alarms(spec.tracking, policy.arn, self._timing)
        ]
        return [{"AlarmName": alarm.name, "AlarmARN": alarm.arn} for alarm in alarms]


def _config(params: shapes.PutScalingPolicyRequest) -> Mapping[str, Any]:
    """The configuration that belongs to the policy's type."""
    type_ = params.get("PolicyType", "StepScaling")
    if type_ == "PredictiveScaling" or "PredictiveScalingPolicyConfiguration" in params:
        raise not_supported("PredictiveScaling")
    member = _CONFIGS[type_]
    if unwanted := next((m for m in _CONFIGS.values() if m != member and m in params), None):
        raise validation(f"{unwanted} cannot be specified for a policy of type {type_}.")
    if member not in params:
        raise validation(f"{member} is required for a policy of type {type_}.")
    config: Mapping[str, Any] = params[member]  # type: ignore[literal-required]
    return config


def _read(
    tx: Transaction,
    params: shapes.PutScalingPolicyRequest,
    config: Mapping[str, Any],
    target: Resource,
    uid: str,
) -> ScalingPolicy:
    scaled = target.spec_as(ScalableTarget)
    spec = ScalingPolicy(params["PolicyName"], scaled.resource_id, config=dict(config))
    if params.get("PolicyType", "StepScaling") == "StepScaling":
        step_config: shapes.StepScalingPolicyConfiguration = config  # type: ignore[assignment]
        return replace(spec, stepping=read_stepping(step_config))
    tracking_config: shapes.TargetTrackingScalingPolicyConfiguration = config  # type: ignore[assignment]
    name = VariantName(scaled.endpoint, scaled.variant)
    fleet = _fleet(tx, target, name)
    return replace(spec, tracking=read_tracking(tracking_config, scaled.resource_id, uid, name, fleet))


def _fleet(tx: Transaction, target: Resource, name: VariantName) -> Fleet:
    """The one that the target's variant belongs to."""
    endpoint = tx.resources.find(target.account, target.region, ENDPOINT.name, name.endpoint)
    if endpoint is not None:
        fleet = endpoint.state_as(EndpointState).fleet or endpoint.spec_as(EndpointSpec).fleet
        if fleet.variant(name.variant) is not None:
            return fleet
    raise validation(f"SageMaker endpoint variant doesn't exist: {target.name}")


def _check_metric(spec: ScalingPolicy, siblings: list[Resource]) -> None:
    """Two policies that hold one metric at two values would never come to rest."""
    if spec.tracking is None:
        return
    for other in siblings:
        tracking = _spec_of(other).tracking
        if tracking is not None and _identity(tracking) == _identity(spec.tracking):
            raise validation(
                "Only one TargetTrackingScaling policy for a given metric specification is allowed."
            )


def _identity(tracking: Tracking) -> tuple[object, ...]:
    return (tracking.namespace, tracking.metric, tracking.dimensions, tracking.statistic, tracking.unit)


def _spec_of(policy: Resource) -> ScalingPolicy:
    return policy.spec_as(ScalingPolicy)


def _shown(tx: Transaction, policy: Resource, spec: ScalingPolicy) -> shapes.ScalingPolicy:
    shown: shapes.ScalingPolicy = {
        "PolicyARN": policy.arn,
        "PolicyName": spec.name,
        "ServiceNamespace": NAMESPACE,
        "ResourceId": spec.resource_id,
        "ScalableDimension": INSTANCE_COUNT,
        "PolicyType": "StepScaling" if spec.tracking is None else "TargetTrackingScaling",
        "Alarms": _alarms(tx, policy, spec),
        "CreationTime": policy.created_at,
    }
    member = _CONFIGS[shown["PolicyType"]]
    return {**shown, member: spec.config}  # type: ignore[misc]


def _alarms(tx: Transaction, policy: Resource, spec: ScalingPolicy) -> list[shapes.Alarm]:
    """A target tracking policy's own two, or those of users that set off a step scaling policy."""
    names: tuple[str, ...]
    if spec.tracking is not None:
        names = (spec.tracking.high_alarm, spec.tracking.low_alarm)
    else:
        quoted = json.dumps(policy.arn)
        names = tuple(
            alarm.spec_as(AlarmSpec).name
            for alarm in tx.resources.all(ALARM_KIND)
            if (alarm.account, alarm.region) == (policy.account, policy.region) and quoted in alarm.spec
        )
    return [{"AlarmName": name, "AlarmARN": alarm_arn(policy.region, policy.account, name)} for name in names]
