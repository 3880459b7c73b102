"""Endpoints: handlers write what is wanted and a wish to reconcile it, in one transaction, and touch nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from clary.domain.clock import Clock
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Variant
from clary.domain.faults import Fault, limit_exceeded, not_supported, validation
from clary.domain.resources import ENDPOINT
from clary.domain.statuses import is_in_progress, is_updatable
from clary.services.application_autoscaling.removal import deregister
from clary.services.sagemaker.access import arn, insert, require
from clary.services.sagemaker.deployment_configs import check_fleet, read_policy, require_alarms
from clary.services.sagemaker.deployment_records import open_record
from clary.services.sagemaker.endpoint_views import describe, settles_soon
from clary.services.sagemaker.fleets import freeze, retained
from clary.services.sagemaker.listing import list_page
from clary.services.sagemaker.scaling_targets import (
    may_not_deregister,
    require_deregistered,
    targets_of,
)
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, Held, operation
from clary.wire.shapes import sagemaker as shapes

Authorize = Callable[[Call, Mapping[str, Any]], None]
"""Raises the fault that says the caller may not do that."""


class Endpoints:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        startup_timeout_s: float,
        most_instances: int,
        authorize: Authorize,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._startup_timeout_s = startup_timeout_s
        self._most_instances = most_instances
        self._authorize = authorize

    @operation("CreateEndpoint")
    def create_endpoint(self, call: Call, params: shapes.CreateEndpointInput) -> shapes.CreateEndpointOutput:
        """DeploymentConfig is kept for an update with RetainDeploymentConfig: a first fleet replaces none."""
        read_policy(params.get("DeploymentConfig"))
        name = params["EndpointName"]
        with self._store.write() as tx:
            if tx.resources.find(call.account, call.region, ENDPOINT.name, name):
                raise ENDPOINT.duplicate(arn(call, ENDPOINT, name))
            fleet = self._freeze(tx, call, params["EndpointConfigName"])
            self._check_size(fleet)
            spec = EndpointSpec(
                fleet,
                self._clock.now(),
                deployment_id=self._new_id(),
                deployment_config=_kept(params.get("DeploymentConfig")),
            )
            endpoint = insert(
                tx,
                call,
                ENDPOINT,
                self._new_id(),
                name,
                spec,
                tags=params.get("Tags"),
                status="Creating",
                state=EndpointState(),
            )
            open_record(tx, call, endpoint, None, spec)
            self._wish(tx, endpoint, "creation asked for", config=fleet.config_name)
        return {"EndpointArn": endpoint.arn}

    @operation("DescribeEndpoint")
    def describe_endpoint(
        self, call: Call, params: shapes.DescribeEndpointInput
    ) -> shapes.DescribeEndpointOutput:
        """Held for a moment while the status is about to settle: waiters look again only after half a minute."""
        mark = self._store.changes.mark()
        with self._store.read() as tx:
            endpoint = require(tx, call, ENDPOINT, params["EndpointName"])
            rows = tx.instances.of(endpoint.uid) if is_in_progress(endpoint.status) else []
        if call.may_hold and settles_soon(endpoint, self._clock.now()):
            raise Held(lambda tell: self._store.changes.watch(endpoint.uid, mark, tell))
        return describe(endpoint, rows, self._clock.now())

    @operation("ListEndpoints")
    def list_endpoints(self, call: Call, params: shapes.ListEndpointsInput) -> shapes.ListEndpointsOutput:
        items, more = list_page(self._store, call, ENDPOINT, params)
        summaries: list[shapes.EndpointSummary] = [
            {
                "EndpointName": item.name,
                "EndpointArn": item.arn,
                "EndpointStatus": item.status,
                "CreationTime": item.created_at,
                "LastModifiedTime": item.modified_at,
            }
            for item in items
        ]
        answer: shapes.ListEndpointsOutput = {"Endpoints": summaries}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    @operation("UpdateEndpoint")
    def update_endpoint(self, call: Call, params: shapes.UpdateEndpointInput) -> shapes.UpdateEndpointOutput:
        """A new fleet of what the configuration says now; how traffic gets there, DeploymentConfig says."""
        asked = params.get("DeploymentConfig")
        if asked is not None and params.get("RetainDeploymentConfig"):
            raise validation("Specify either DeploymentConfig or RetainDeploymentConfig, not both.")
        policy = read_policy(asked)
        with self._store.write() as tx:
            endpoint, live = self._updatable(tx, call, params["EndpointName"])
            fleet = self._freeze(tx, call, params["EndpointConfigName"])
            if params.get("RetainAllVariantProperties"):
                excluded = params.get("ExcludeRetainedVariantProperties", [])
                fleet = retained(fleet, live, frozenset(item["VariantPropertyType"] for item in excluded))
            config = endpoint.spec_as(EndpointSpec).deployment_config
            if asked is not None:
                config = _kept(asked)
            elif params.get("RetainDeploymentConfig"):
                policy = read_policy(cast(shapes.DeploymentConfig, config))
            check_fleet(policy, fleet)
            require_alarms(tx, call, policy)
            require_deregistered(tx, endpoint, live, fleet)
            spec = EndpointSpec(
                fleet,
                self._clock.now(),
                deployment_id=self._new_id(),
                policy=policy,
                deployment_config=config,
            )
            self._update(tx, endpoint, live, spec, "update asked for", config=fleet.config_name)
            open_record(tx, call, endpoint, live, spec)
        return {"EndpointArn": endpoint.arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_endpoint_weights_and_capacities(
        self, call: Call, params: shapes.UpdateEndpointWeightsAndCapacitiesInput
    ) -> shapes.UpdateEndpointWeightsAndCapacitiesOutput:
        """The same fleet with other numbers: its processes stay, and nothing is deployed."""
        with self._store.write() as tx:
            endpoint, live = self._updatable(tx, call, params["EndpointName"])
            if endpoint.status == "UpdateRollbackFailed":
                raise validation(
                    f'Cannot update weights and capacities of endpoint "{endpoint.arn}" in status '
                    "UpdateRollbackFailed, where parts of two configurations serve. Repair it with UpdateEndpoint."
                )
            fleet = _with_numbers(live, params["DesiredWeightsAndCapacities"])
            numbers = {
                v.name: {"weight": v.weight, "count": v.count} for v in (*fleet.variants, *fleet.shadows)
            }
            config = endpoint.spec_as(EndpointSpec).deployment_config
            spec = EndpointSpec(fleet, self._clock.now(), deployment_config=config)
            self._update(tx, endpoint, live, spec, "new weights and counts asked for", variants=numbers)
        return {"EndpointArn": endpoint.arn}

    @operation("DeleteEndpoint")
    def delete_endpoint(self, call: Call, params: shapes.DeleteEndpointInput) -> None:
        with self._store.write(on_full_disk=True) as tx:
            endpoint = require(tx, call, ENDPOINT, params["EndpointName"])
            if is_in_progress(endpoint.status):
                raise _in_progress(endpoint)
            self._let_targets_go(tx, call, endpoint)
            tx.resources.update(endpoint, status="Deleting")
            self._wish(tx, endpoint, "deletion asked for")

    def _let_targets_go(self, tx: Transaction, call: Call, endpoint: Resource) -> None:
        """An endpoint's scalable targets go with it, if its caller may do that."""
        fleet = endpoint.state_as(EndpointState).fleet or endpoint.spec_as(EndpointSpec).fleet
        for target in targets_of(tx, endpoint, fleet):
            asked = replace(call, service="application-autoscaling", operation="DeregisterScalableTarget")
            try:
                self._authorize(asked, {"ResourceId": target.name})
            except Fault as fault:
                raise may_not_deregister() from fault
            deregister(tx, target)

    def _freeze(self, tx: Transaction, call: Call, config_name: str) -> Fleet:
        return freeze(tx, call, self._new_id(), config_name, self._startup_timeout_s)

    def _updatable(self, tx: Transaction, call: Call, name: str) -> tuple[Resource, Fleet]:
        """An endpoint that takes an update now, and the fleet in force."""
        endpoint = require(tx, call, ENDPOINT, name)
        if is_in_progress(endpoint.status):
            raise _in_progress(endpoint)
        live = endpoint.state_as(EndpointState).fleet
        if live is None or not is_updatable(endpoint.status):
            raise validation(
                f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}; it can only be deleted.'
            )
        return endpoint, live

    def _check_size(self, fleet: Fleet, live: Fleet | None = None) -> None:
        wanted = _instances(fleet)
        if wanted <= self._most_instances:
            return
        used = 0 if live is None else _instances(live)
        raise limit_exceeded(
            f"The account-level service limit '{fleet.variants[0].instance_type} for endpoint usage' is "
            f"{self._most_instances} Instances, with current utilization of {used} Instances and a request delta of "
            f"{wanted - used} Instances. The server's setting max_endpoint_instances raises this limit."
        )

    def _update(
        self,
        tx: Transaction,
        endpoint: Resource,
        live: Fleet,
        spec: EndpointSpec,
        step: str,
        **detail: object,
    ) -> None:
        """What is wanted from now on. What came of the last update is no longer told."""
        self._check_size(spec.fleet, live)
        if sum(variant.weight for variant in spec.fleet.variants) <= 0:
            raise validation("At least one production variant must have a weight above 0.")
        state = replace(endpoint.state_as(EndpointState), problem=None, outlook="unknown")
        if spec.deployment_id:
            state = replace(state, used_deployment_config=spec.deployment_config)
        tx.resources.update(endpoint, status="Updating", spec=spec, state=state)
        self._wish(tx, endpoint, step, **detail)

    def _wish(self, tx: Transaction, endpoint: Resource, step: str, **detail: object) -> None:
        tx.events.add(endpoint.uid, step, **detail)
        tx.work.wish(ENDPOINT.name, endpoint.uid)


def _kept(config: shapes.DeploymentConfig | None) -> dict[str, Any] | None:
    return None if config is None else dict(config)


def _instances(fleet: Fleet) -> int:
    return sum(variant.count for variant in (*fleet.variants, *fleet.shadows))


def _with_numbers(fleet: Fleet, wanted: list[shapes.DesiredWeightAndCapacity]) -> Fleet:
    """The fleet with what is named changed; the rest keeps its values. A shadow has numbers as well."""
    by_name = {numbers["VariantName"]: numbers for numbers in wanted}
    if len(by_name) != len(wanted):
        raise validation("Variant names must be unique within DesiredWeightsAndCapacities.")
    known = {variant.name for variant in (*fleet.variants, *fleet.shadows)}
    if unknown := [name for name in by_name if name not in known]:
        raise validation(
            f"Variant {unknown[0]} does not exist in the endpoint; its variants are {', '.join(sorted(known))}."
        )
    return replace(
        fleet,
        variants=tuple(_numbered(variant, by_name.get(variant.name)) for variant in fleet.variants),
        shadows=tuple(_numbered(variant, by_name.get(variant.name)) for variant in fleet.shadows),
    )


def _numbered(variant: Variant, numbers: shapes.DesiredWeightAndCapacity | None) -> Variant:
    if numbers is None:
        return variant
    if "ServerlessUpdateConfig" in numbers:
        raise not_supported("ServerlessUpdateConfig")
    count = numbers.get("DesiredInstanceCount", variant.count)
    if count < 1:
        raise not_supported("DesiredInstanceCount 0")
    return replace(variant, count=count, weight=numbers.get("DesiredWeight", variant.weight))


def _in_progress(endpoint: Resource) -> Fault:
    return validation(f'Cannot update in-progress endpoint "{endpoint.arn}".')
