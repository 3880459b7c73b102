"""ListEndpointModels and PinEndpointModels: what the instances of a multi-model endpoint hold, as the host tells it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from clary.domain.faults import Fault, validation
from clary.domain.places import InstanceRow
from clary.domain.resources import ENDPOINT
from clary.links import hosts
from clary.links.hosts import HostError, HostUnavailable
from clary.store import Resource, Store
from clary.wire.operations import Call, operation

PREFETCH_TIMEOUT_S = 20.0
ACTIONS = ("pin", "unpin", "prefetch")

T = TypeVar("T")


class AskHost(Protocol):
    """`HostClient.call`."""

    def __call__(self, operation: str, arguments: object, result: type[T]) -> T: ...


class EndpointModels:
    def __init__(self, store: Store, ask: AskHost) -> None:
        self._store = store
        self._ask = ask

    @operation("ListEndpointModels")
    def list_endpoint_models(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        endpoint, rows = self._find(call, str(params.get("Name", "")))
        variants = {row.id: row.slot.variant for row in rows}
        wanted = hosts.ListModels(tuple(variants))
        found = (
            self._asked(lambda: self._ask("list_models", wanted, list[hosts.ModelStatus])) if variants else []
        )
        return {
            "Name": endpoint.name,
            "Instances": len(variants),
            "Models": [_shown(model) | {"Variant": variants[model.instance_id]} for model in found],
        }

    @operation("PinEndpointModels")
    def pin_endpoint_models(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        """For all instances that there are now; those that come later begin without pins."""
        endpoint, rows = self._find(call, str(params.get("Name", "")))
        action, targets = params.get("Action"), _names(params.get("Models"))
        if action not in ACTIONS or not targets:
            raise validation(f"Action must be one of {', '.join(ACTIONS)}, and Models must name models.")
        ids = tuple(row.id for row in rows)
        if action == "prefetch":
            done = [self._prefetched(row, target) for row in rows for target in targets]
            return {"Name": endpoint.name, "Instances": len(ids), "Models": done}
        pins = hosts.PinModels(ids, tuple(targets), action == "pin")
        self._asked(lambda: self._ask("pin_models", pins, type(None)))
        return {"Name": endpoint.name, "Instances": len(ids), "Models": []}

    def _prefetched(self, row: InstanceRow, target: str) -> dict[str, Any]:
        said = {"InstanceId": row.id, "TargetModel": target, "State": "loaded", "Reason": ""}
        try:
            wanted = hosts.LoadModel(row.id, target, PREFETCH_TIMEOUT_S)
            self._ask("load_model", wanted, hosts.LoadedModel)
        except HostError as error:
            state = "loading" if error.code == "ModelTimeout" else "failed"
            return said | {"State": state, "Reason": str(error)}
        except HostUnavailable as error:
            raise _unavailable(error) from error
        return said

    def _find(self, call: Call, name: str) -> tuple[Resource, Sequence[InstanceRow]]:
        with self._store.read() as tx:
            endpoint = tx.resources.find(call.account, call.region, ENDPOINT.name, name)
            if endpoint is None:
                raise validation(f'Could not find an endpoint named "{name}" in {call.region}.')
            rows = [row for row in tx.instances.of(endpoint.uid) if row.is_wanted and row.phase == "ready"]
            specs = {row.id: tx.instances.spec(row.id) for row in rows}
        many = [row for row in rows if (spec := specs[row.id]) is not None and spec.models is not None]
        if rows and not many:
            raise validation(f"Endpoint {endpoint.name} is not a multi-model endpoint: it has one model.")
        return endpoint, many

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except HostError as error:
            raise validation(f"{error}.") from error
        except HostUnavailable as error:
            raise _unavailable(error) from error


def _unavailable(error: HostUnavailable) -> Fault:
    return Fault("ServiceUnavailable", f"The host does not answer: {error}. Try again.", 503)


def _names(value: object) -> list[str]:
    """Empty for anything else."""
    names = value if isinstance(value, list) else []
    return names if all(isinstance(each, str) and each for each in names) else []


def _shown(model: hosts.ModelStatus) -> dict[str, Any]:
    return {
        "TargetModel": model.target_model,
        "InstanceId": model.instance_id,
        "ContainerName": model.name,
        "State": model.state,
        "LoadedAt": _time(model.loaded_at),
        "LastUsedAt": _time(model.last_used_at),
        "MemoryBytes": model.memory_bytes,
        "SizeBytes": model.size_bytes,
        "Calls": model.calls,
        "Loads": model.loads,
        "Hits": max(0, model.calls - model.loads),
        "IsPinned": model.is_pinned,
        "Reason": model.reason,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
