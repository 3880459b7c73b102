"""Deployment records get their steps and their verdict here, in the transaction that makes them true.

A record that is not there stops nothing: it was deleted, or the deployment began before there were records.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from clary.domain.deployments import DEPLOYMENT_KIND, DeploymentRecord, DeploymentStep, Verdict
from clary.domain.resources import ENDPOINT
from clary.store import Resource, Store, Transaction

MOST_STEPS = 300
"""Kept of one deployment: the first half of them, and the newest."""


KEPT_FOR = timedelta(days=30)
"""Records of an endpoint that is gone."""


def append(
    tx: Transaction,
    id_: str,
    steps: Sequence[DeploymentStep],
    verdict: Verdict | None,
    at: datetime,
    reason: str = "",
) -> None:
    if not steps and verdict is None:
        return
    resource = tx.resources.get(id_)
    if resource is None or resource.kind != DEPLOYMENT_KIND:
        return
    record = resource.state_as(DeploymentRecord)
    record = replace(record, steps=_bounded((*record.steps, *steps)))
    if verdict is not None:
        record = replace(record, verdict=verdict, reason=reason, ended_at=at)
    status = record.verdict if record.verdict != resource.status else None
    tx.resources.update(resource, status=status, state=record)


def forget_old(store: Store, now: datetime) -> int:
    """Takes the old records of endpoints that are gone away; how many those were."""
    with store.read() as tx:
        old = [
            record
            for record in tx.resources.all(DEPLOYMENT_KIND)
            if record.modified_at < now - KEPT_FOR and not _has_endpoint(tx, record)
        ]
    if old:
        with store.write(on_full_disk=True) as tx:
            for record in old:
                tx.resources.delete(record.uid)
    return len(old)


def _has_endpoint(tx: Transaction, record: Resource) -> bool:
    name = record.name.partition("/")[0]
    return tx.resources.find(record.account, record.region, ENDPOINT.name, name) is not None


def _bounded(steps: tuple[DeploymentStep, ...]) -> tuple[DeploymentStep, ...]:
    if len(steps) <= MOST_STEPS:
        return steps
    half = MOST_STEPS // 2
    return (*steps[:half], *steps[half - MOST_STEPS :])
