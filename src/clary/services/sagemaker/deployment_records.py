"""Deployment records: who asked for what, written in the transaction that begins the deployment.

What became of it is appended by the endpoint's reconciler. Records outlive their endpoint, under its ARN; the newest
`KEPT` of a name are kept.
"""

from dataclasses import replace
from datetime import datetime

from clary.domain.arns import sagemaker_arn
from clary.domain.deployments import DEPLOYMENT_KIND, DeploymentRecord, DeploymentRequest
from clary.domain.differences import differences
from clary.domain.endpoints import EndpointSpec, Fleet
from clary.store import Resource, Transaction
from clary.wire.operations import Call

KEPT = 50


def open_record(
    tx: Transaction, call: Call, endpoint: Resource, live: Fleet | None, spec: EndpointSpec
) -> None:
    """One more record of this endpoint, under way. The oldest beyond `KEPT` go."""
    earlier = tx.resources.children(endpoint.arn, DEPLOYMENT_KIND)
    for record in earlier:
        if record.status == "in-progress":
            _supersede(tx, record, spec.deployment_started_at)
    for record in earlier[KEPT - 1 :]:
        tx.resources.delete(record.uid)
    name = f"{endpoint.name}/{spec.deployment_id}"
    tx.resources.insert(
        uid=spec.deployment_id,
        account=endpoint.account,
        region=endpoint.region,
        kind=DEPLOYMENT_KIND,
        arn=sagemaker_arn(endpoint.region, endpoint.account, DEPLOYMENT_KIND, name),
        name=name,
        status="in-progress",
        spec=DeploymentRequest(
            id=spec.deployment_id,
            endpoint_name=endpoint.name,
            operation=call.operation,
            requested_by=call.principal.arn,
            from_config="" if live is None else live.config_name,
            to_config=spec.fleet.config_name,
            changes=differences(live, spec.fleet),
            policy=spec.policy,
            started_at=spec.deployment_started_at,
        ),
        state=DeploymentRecord(),
        parent=endpoint.arn,
    )


def _supersede(tx: Transaction, record: Resource, at: datetime) -> None:
    """Nobody will write its end any more: another deployment begins, or the endpoint of that time is gone."""
    state = record.state_as(DeploymentRecord)
    tx.resources.update(record, status="superseded", state=replace(state, verdict="superseded", ended_at=at))
