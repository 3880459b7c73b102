"""A scalable target as it is read: its endpoint's counts, its policies with their alarms, its scheduled actions."""

from dataclasses import dataclass

from clary.domain.endpoints import EndpointSpec, EndpointState
from clary.domain.resources import ENDPOINT
from clary.domain.scaling import (
    SCALING_POLICY_KIND,
    SCHEDULED_ACTION_KIND,
    PolicyState,
    ScalableTarget,
    ScalingPolicy,
    TargetState,
)
from clary.domain.statuses import is_in_progress
from clary.reconcilers.scaling_schedules import Planned
from clary.reconcilers.scaling_views import Policy
from clary.store import Resource, Transaction
from clary.store.alarms import find_alarm


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything about a target as it was read. `endpoint` None: it, or the variant, is gone."""

    resource: Resource
    spec: ScalableTarget
    state: TargetState
    endpoint: Resource | None
    wanted: int  # instances that the endpoint is to have
    current: int  # those in force
    is_serving: bool  # it has been in service; only then there are counts to change
    failure: str  # why its last update failed
    policies: tuple[Policy, ...]
    alarms: dict[str, Resource]
    planned: tuple[Planned, ...]

    @property
    def is_busy(self) -> bool:
        return self.endpoint is not None and is_in_progress(self.endpoint.status)

    @property
    def capacity(self) -> int:
        """What there is, or is about to be."""
        return self.wanted if self.is_busy else self.current

    @property
    def limits(self) -> tuple[int, int]:
        return self.spec.min_capacity, self.spec.max_capacity


def load(tx: Transaction, uid: str) -> Loaded | None:
    resource = tx.resources.get(uid)
    if resource is None:
        return None
    spec = resource.spec_as(ScalableTarget)
    endpoint = tx.resources.find(resource.account, resource.region, ENDPOINT.name, spec.endpoint)
    wanted, current, is_serving, failure = _counts(endpoint, spec.variant)
    if wanted is None or (endpoint is not None and endpoint.status == "Deleting"):
        endpoint = None
    policies = tuple(
        Policy(each, each.spec_as(ScalingPolicy), each.state_as(PolicyState))
        for each in tx.resources.children(resource.arn, SCALING_POLICY_KIND)
    )
    return Loaded(
        resource=resource,
        spec=spec,
        state=resource.state_as(TargetState),
        endpoint=endpoint,
        wanted=wanted or 0,
        current=current,
        is_serving=is_serving,
        failure=failure,
        policies=policies,
        alarms=_alarms(tx, resource, policies),
        planned=tuple(map(Planned.of, tx.resources.children(resource.arn, SCHEDULED_ACTION_KIND))),
    )


def _alarms(tx: Transaction, target: Resource, policies: tuple[Policy, ...]) -> dict[str, Resource]:
    names = [
        name
        for policy in policies
        for name in (
            (policy.spec.tracking.high_alarm, policy.spec.tracking.low_alarm)
            if policy.spec.tracking is not None
            else policy.state.triggers
        )
    ]
    found = ((name, find_alarm(tx, target.account, target.region, name)) for name in names)
    return {name: alarm for name, alarm in found if alarm is not None}


def _counts(endpoint: Resource | None, variant: str) -> tuple[int | None, int, bool, str]:
    """Instances wanted (None: there is no such variant) and in force, whether it serves, and what failed last."""
    if endpoint is None:
        return None, 0, False, ""
    spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
    failure = state.problem.reason if state.problem is not None else ""
    if state.fleet is None:
        wanted = spec.fleet.variant(variant)
        return (None if wanted is None else wanted.count), 0, False, failure
    live = state.fleet.variant(variant)
    if live is None:
        return None, 0, False, failure
    wanted = spec.fleet.variant(variant) if spec.fleet.id == state.fleet.id else None
    return (wanted or live).count, live.count, True, failure
