"""Explain: why something is as it is. The time line, the evidence of a failure, the log, what to do next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clary.domain.arns import endpoint_log_group
from clary.domain.endpoints import EndpointSpec, EndpointState, Problem
from clary.domain.faults import validation
from clary.domain.instances import InstanceId, InstanceSpec, LogTarget
from clary.domain.places import InstanceRow
from clary.domain.resources import ENDPOINT, ENDPOINT_CONFIG, MODEL, Kind
from clary.services.clary.progress import progress
from clary.store import Resource, Store
from clary.wire.operations import Call, operation

TAIL_LINES = 20


class Explain:
    def __init__(
        self, store: Store, log_tail: Callable[[LogTarget, int], Sequence[str]], command_options: str = ""
    ) -> None:
        self._store = store
        self._log_tail = log_tail
        self._command_options = command_options

    @operation("Explain")
    def explain(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        kind, resource, rows = self._find(call, str(params.get("Name", "")))
        with self._store.read() as tx:
            events = tx.events.of(resource.uid)
            specs = {row.id: spec for row in rows if (spec := tx.instances.spec(row.id)) is not None}
        answer: dict[str, Any] = {
            "Name": resource.name,
            "Kind": kind.name,
            "Arn": resource.arn,
            "Status": resource.status,
            "CreatedAt": resource.created_at.isoformat(),
            "ModifiedAt": resource.modified_at.isoformat(),
            "Events": [
                {"At": event.at.isoformat(), "Step": event.step, "Detail": event.detail} for event in events
            ],
        }
        if kind is ENDPOINT:
            answer |= self._endpoint(resource, rows, specs)
        return answer

    def _find(self, call: Call, name: str) -> tuple[Kind, Resource, list[InstanceRow]]:
        with self._store.read() as tx:
            for kind in (ENDPOINT, ENDPOINT_CONFIG, MODEL):
                found = tx.resources.find(call.account, call.region, kind.name, name)
                if found is not None:
                    return kind, found, tx.instances.of(found.uid)
        raise validation(
            f'Could not find an endpoint, endpoint configuration or model named "{name}" in {call.region}.'
        )

    def _endpoint(
        self, endpoint: Resource, rows: list[InstanceRow], specs: Mapping[InstanceId, InstanceSpec]
    ) -> dict[str, Any]:
        spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
        group = endpoint_log_group(endpoint.name)
        configs = {fleet.id: fleet.config_name for fleet in (state.fleet, spec.fleet) if fleet is not None}
        answer: dict[str, Any] = {
            "Config": (state.fleet or spec.fleet).config_name,
            "LogGroup": group,
            # A configuration that is not known is of a fleet on its way out.
            "Instances": [_instance(row, configs.get(row.slot.fleet, ""), specs.get(row.id)) for row in rows],
        }
        if under_way := progress(spec, state, rows):
            answer["Deployment"] = under_way
        if state.problem is not None:
            answer["FailureReason"] = state.problem.reason
            if state.problem.failure is not None:
                answer["Failure"] = asdict(state.problem.failure)
        if stream := _stream(state.problem, rows, specs):
            target = LogTarget(endpoint.account, endpoint.region, group, stream)
            answer["LogStream"] = stream
            answer["LogTail"] = list(self._log_tail(target, TAIL_LINES))
        commands = _next_commands(endpoint, state.problem, has_log=bool(answer.get("LogTail")))
        if state.deployment is not None or (state.problem is not None and state.fleet is not None):
            commands.append(f"clary deployments {endpoint.name}")
        if any(variant.models is not None for variant in (state.fleet or spec.fleet).variants):
            commands.append(f"clary models {endpoint.name}")
        answer["Next"] = [
            f"{command}{self._command_options}" if command.startswith("clary ") else command
            for command in commands
        ]
        return answer


def _instance(row: InstanceRow, config: str, spec: InstanceSpec | None) -> dict[str, Any]:
    shown = {
        "Id": row.id,
        "Variant": row.slot.variant,
        "Config": config,
        "Zone": "" if spec is None else spec.zone,
        "Incarnation": row.slot.incarnation,
        "Phase": row.phase,
        "Wanted": row.is_wanted,
    }
    if spec is not None and spec.containers:
        shown["Containers"] = [each.name for each in spec.containers]
    return shown


def _stream(
    problem: Problem | None, rows: list[InstanceRow], specs: Mapping[InstanceId, InstanceSpec]
) -> str:
    """The log worth reading: of the container that failed, else of the first of the newest instance."""
    if problem is not None and problem.instance_id:
        container = problem.failure.container if problem.failure is not None else ""
        return "/".join(filter(None, (problem.variant, problem.instance_id, container)))
    newest = max(rows, key=lambda row: row.slot.incarnation, default=None)
    if newest is None:
        return ""
    spec = specs.get(newest.id)
    containers = spec.containers[:1] if spec is not None else ()
    return "/".join((newest.slot.variant, newest.id, *(each.name for each in containers)))


def _next_commands(endpoint: Resource, problem: Problem | None, *, has_log: bool) -> list[str]:
    logs = f"clary logs {endpoint.name}"
    commands = [logs] if has_log else []
    if problem is not None and problem.failure is not None:
        told = problem.failure.next_command
        if told and told != logs:
            commands.insert(0, told)
    if endpoint.status == "Failed":
        commands.append(f"aws sagemaker delete-endpoint --endpoint-name {endpoint.name}")
    return commands
