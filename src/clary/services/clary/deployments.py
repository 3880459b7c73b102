"""ListDeployments: the deployment records of an endpoint, newest first, also of one that is gone."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clary.domain.deployments import (
    DEPLOYMENT_KIND,
    DeploymentPolicy,
    DeploymentRecord,
    DeploymentRequest,
    DeploymentStep,
)
from clary.domain.faults import validation
from clary.domain.resources import ENDPOINT
from clary.store import Resource, Store
from clary.wire.operations import Call, operation


class Deployments:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("ListDeployments")
    def list_deployments(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        name = str(params.get("Name", ""))
        arn = ENDPOINT.arn(call.region, call.account, name)
        with self._store.read() as tx:
            records = tx.resources.children(arn, DEPLOYMENT_KIND)
            endpoint = tx.resources.find(call.account, call.region, ENDPOINT.name, name)
        if endpoint is None and not records:
            raise validation(
                f'Could not find an endpoint named "{name}" in {call.region}, nor records of one that is gone.'
            )
        return {
            "Name": name if endpoint is None else endpoint.name,
            "Status": "Deleted" if endpoint is None else endpoint.status,
            "Deployments": [shown(record) for record in records],
        }


def shown(record: Resource) -> dict[str, Any]:
    """A record as plain JSON."""
    request, state = record.spec_as(DeploymentRequest), record.state_as(DeploymentRecord)
    return {
        "Id": request.id,
        "Operation": request.operation,
        "RequestedBy": request.requested_by,
        "From": request.from_config,
        "To": request.to_config,
        "Changes": list(request.changes),
        "Policy": _policy(request.policy),
        "StartedAt": request.started_at.isoformat(),
        "EndedAt": None if state.ended_at is None else state.ended_at.isoformat(),
        "Verdict": record.status,
        "Reason": state.reason,
        "Steps": [_step(step) for step in state.steps],
    }


def _policy(policy: DeploymentPolicy) -> dict[str, Any]:
    return {
        "Strategy": policy.strategy,
        "Step": None if policy.step is None else asdict(policy.step),
        "WaitSeconds": policy.wait_s,
        "TerminationWaitSeconds": policy.termination_wait_s,
        "MaximumExecutionSeconds": policy.maximum_execution_s,
        "RollbackStep": None if policy.rollback_step is None else asdict(policy.rollback_step),
        "Alarms": list(policy.alarms),
    }


def _step(step: DeploymentStep) -> dict[str, Any]:
    return {"At": step.at.isoformat(), "Step": step.step, "Evidence": dict(step.evidence)}
