"""Endpoints: handlers write what is wanted and a wish to reconcile it, in one transaction, and touch nothing else."""

from collections.abc import Callable
from dataclasses import replace

from clary.domain.clock import Clock
from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet
from clary.domain.faults import Fault, limit_exceeded, not_supported, validation
from clary.domain.resources import ENDPOINT
from clary.domain.statuses import is_in_progress, is_updatable
from clary.services.sagemaker.access import arn, insert, require
from clary.services.sagemaker.endpoint_views import describe, settles_soon
from clary.services.sagemaker.fleets import freeze
from clary.services.sagemaker.listing import list_page
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, Held, operation
from clary.wire.shapes import sagemaker as shapes


class Endpoints:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        startup_timeout_s: float,
        most_instances: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._startup_timeout_s = startup_timeout_s
        self._most_instances = most_instances

    @operation("CreateEndpoint")
    def create_endpoint(self, call: Call, params: shapes.CreateEndpointInput) -> shapes.CreateEndpointOutput:
        _check_deployment(params.get("DeploymentConfig"))
        name = params["EndpointName"]
        with self._store.write() as tx:
            if tx.resources.find(call.account, call.region, ENDPOINT.name, name):
                raise ENDPOINT.duplicate(arn(call, ENDPOINT, name))
            fleet = self._freeze(tx, call, params["EndpointConfigName"])
            self._check_size(fleet)
            endpoint = insert(
                tx,
                call,
                ENDPOINT,
                self._new_id(),
                name,
                EndpointSpec(fleet, self._clock.now()),
                tags=params.get("Tags"),
                status="Creating",
                state=EndpointState(),
            )
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
        if call.may_hold and settles_soon(endpoint, self._clock.now()):
            raise Held(lambda tell: self._store.changes.watch(endpoint.uid, mark, tell))
        return describe(endpoint)

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
        """All at once: a whole new fleet, then the traffic, then the old fleet goes."""
        _check_deployment(params.get("DeploymentConfig"))
        if params.get("RetainDeploymentConfig"):
            raise not_supported("RetainDeploymentConfig")
        with self._store.write() as tx:
            endpoint, live = self._updatable(tx, call, params["EndpointName"])
            fleet = self._freeze(tx, call, params["EndpointConfigName"])
            if params.get("RetainAllVariantProperties"):
                excluded = {
                    item["VariantPropertyType"] for item in params.get("ExcludeRetainedVariantProperties", [])
                }
                fleet = fleet.with_numbers_of(
                    live,
                    weights="DesiredWeight" not in excluded,
                    counts="DesiredInstanceCount" not in excluded,
                )
            self._update(tx, endpoint, live, fleet, "update asked for", config=fleet.config_name)
        return {"EndpointArn": endpoint.arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_endpoint_weights_and_capacities(
        self, call: Call, params: shapes.UpdateEndpointWeightsAndCapacitiesInput
    ) -> shapes.UpdateEndpointWeightsAndCapacitiesOutput:
        """The same fleet with other numbers: its processes stay."""
        with self._store.write() as tx:
            endpoint, live = self._updatable(tx, call, params["EndpointName"])
            fleet = _with_numbers(live, params["DesiredWeightsAndCapacities"])
            numbers = {v.name: {"weight": v.weight, "count": v.count} for v in fleet.variants}
            self._update(tx, endpoint, live, fleet, "new weights and counts asked for", variants=numbers)
        return {"EndpointArn": endpoint.arn}

    @operation("DeleteEndpoint")
    def delete_endpoint(self, call: Call, params: shapes.DeleteEndpointInput) -> None:
        with self._store.write() as tx:
            endpoint = require(tx, call, ENDPOINT, params["EndpointName"])
            if is_in_progress(endpoint.status):
                raise _in_progress(endpoint)
            tx.resources.update(endpoint, status="Deleting")
            self._wish(tx, endpoint, "deletion asked for")

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
        wanted = sum(variant.count for variant in fleet.variants)
        if wanted <= self._most_instances:
            return
        used = 0 if live is None else sum(variant.count for variant in live.variants)
        raise limit_exceeded(
            f"The account-level service limit '{fleet.variants[0].instance_type} for endpoint usage' is "
            f"{self._most_instances} Instances, with current utilization of {used} Instances and a request delta of "
            f"{wanted - used} Instances. The server's setting max_endpoint_instances raises this limit."
        )

    def _update(
        self, tx: Transaction, endpoint: Resource, live: Fleet, fleet: Fleet, step: str, **detail: object
    ) -> None:
        self._check_size(fleet, live)
        state = replace(endpoint.state_as(EndpointState), problem=None, outlook="unknown")
        spec = EndpointSpec(fleet, self._clock.now())
        tx.resources.update(endpoint, status="Updating", spec=spec, state=state)
        self._wish(tx, endpoint, step, **detail)

    def _wish(self, tx: Transaction, endpoint: Resource, step: str, **detail: object) -> None:
        tx.events.add(endpoint.uid, step, **detail)
        tx.work.wish(ENDPOINT.name, endpoint.uid)


def _with_numbers(fleet: Fleet, wanted: list[shapes.DesiredWeightAndCapacity]) -> Fleet:
    """The fleet with what is named changed; the rest keeps its values."""
    for numbers in wanted:
        variant = fleet.variant(numbers["VariantName"])
        if variant is None:
            raise validation(f"Variant {numbers['VariantName']} does not exist in the endpoint.")
        if "ServerlessUpdateConfig" in numbers:
            raise not_supported("ServerlessUpdateConfig")
        count = numbers.get("DesiredInstanceCount", variant.count)
        if count < 1:
            raise not_supported("DesiredInstanceCount 0")
        changed = replace(variant, count=count, weight=numbers.get("DesiredWeight", variant.weight))
        fleet = replace(
            fleet, variants=tuple(changed if v.name == variant.name else v for v in fleet.variants)
        )
    return fleet


def _check_deployment(config: shapes.DeploymentConfig | None) -> None:
    """Only the one way there is: everything at once, without waiting and without alarms."""
    if config is None:
        return
    if "RollingUpdatePolicy" in config:
        raise not_supported("RollingUpdatePolicy")
    if config.get("AutoRollbackConfiguration", {}).get("Alarms"):
        raise not_supported("AutoRollbackConfiguration")
    policy = config.get("BlueGreenUpdatePolicy")
    if policy is None:
        return
    routing = policy["TrafficRoutingConfiguration"]
    if routing["Type"] != "ALL_AT_ONCE":
        raise not_supported(f"TrafficRoutingConfiguration {routing['Type']}")
    if routing.get("WaitIntervalInSeconds"):
        raise not_supported("WaitIntervalInSeconds above 0")
    if policy.get("TerminationWaitInSeconds"):
        raise not_supported("TerminationWaitInSeconds above 0")


def _in_progress(endpoint: Resource) -> Fault:
    return validation(f'Cannot update in-progress endpoint "{endpoint.arn}".')
