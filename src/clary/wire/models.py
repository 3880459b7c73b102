"""The AWS service models, cut down to what this server answers.

botocore ships each service's model as one compressed JSON file. Fully parsed, the sagemaker one alone takes tens of
megabytes, nearly all of it documentation and operations nobody implements. So a file is read without materialising
what is not needed: of every operation its name and its REST route are kept, of the operations asked for also their
shapes. A model is loaded when it is first asked for.
"""

import gzip
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import botocore
import msgspec
from botocore import model

from clary.links.decoding import decode_json
from clary.wire.routing import RestRoute, RestRouter

# In the order in which clients choose; of what a service lists, these are the ones answered here.
_SPOKEN = ("json", "rest-json", "rest-xml", "smithy-rpc-v2-cbor", "query")

_IGNORED_TRAITS = frozenset({"documentation", "deprecatedMessage", "deprecatedSince"})


class ServiceModels:
    """The models by service name, as botocore names it. `implemented` None keeps every operation's shapes."""

    def __init__(self, implemented: Collection[tuple[str, str]] | None = None) -> None:
        self._implemented = None if implemented is None else frozenset(implemented)
        self._services: dict[str, ServiceModel] = {}
        self._lock = threading.Lock()

    def service(self, name: str) -> "ServiceModel":
        """The model of `name`; LookupError for a service that botocore does not know."""
        found = self._services.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._services:
                self._services[name] = load(name, self._wanted(name))
            return self._services[name]

    def _wanted(self, service: str) -> frozenset[str] | None:
        if self._implemented is None:
            return None
        return frozenset(operation for owner, operation in self._implemented if owner == service)


class ServiceModel:
    """One service: botocore's own model objects for the operations kept, plain facts for the rest."""

    def __init__(
        self,
        name: str,
        inner: model.ServiceModel,
        operation_names: Collection[str],
        error_statuses: Mapping[str, int],
        routes: Collection[RestRoute],
        absences: Mapping[str, str],
    ) -> None:
        self.name = name
        self.operation_names = frozenset(operation_names)
        self._inner = inner
        self._kept = frozenset(inner.operation_names)
        self._error_statuses = error_statuses
        self._router = RestRouter(routes)
        self._absences = absences

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """The protocols of this service that are spoken here, the one that clients prefer first."""
        listed = self._inner.metadata["protocols"]
        return tuple(name for name in _SPOKEN if name in listed)

    @property
    def target_prefix(self) -> str | None:
        """What stands before the dot in X-Amz-Target."""
        return cast("str | None", self._inner.metadata.get("targetPrefix"))

    @property
    def api_version(self) -> str:
        return cast(str, self._inner.metadata["apiVersion"])

    def has_operation(self, name: str) -> bool:
        """Whether AWS has this operation; whether its shapes are kept is another question."""
        return name in self.operation_names

    def operation(self, name: str) -> model.OperationModel:
        """The operation's model; LookupError when it was not among the implemented ones."""
        if name not in self._kept:
            raise LookupError(f"the model of {self.name}.{name} was not asked for")
        return self._inner.operation_model(name)

    def match(self, method: str, path: str, query: str, headers: Collection[str]) -> str | None:
        """The REST operation that a request means. `path` and `query` are raw, header names lower case."""
        return self._router.match(method, path, query, headers)

    def absence(self, operation: str) -> str | None:
        """The modelled error with which a Describe says that there is no such thing; None without one."""
        return self._absences.get(operation)

    def error_status(self, code: str) -> int | None:
        """The HTTP status that the model gives a modelled error; None when it says nothing."""
        return self._error_statuses.get(code)


class _ModelFile(msgspec.Struct):
    metadata: dict[str, Any]
    operations: dict[str, msgspec.Raw]
    shapes: dict[str, msgspec.Raw]


class _ErrorTraits(msgspec.Struct):
    exception: bool = False
    error: dict[str, Any] = {}


def load(name: str, wanted: Collection[str] | None) -> ServiceModel:
    """Reads a model from botocore's data, keeping the shapes of the `wanted` operations (None: of all)."""
    file = decode_json(gzip.decompress(_model_path(name).read_bytes()), _ModelFile)
    operations = {key: msgspec.json.decode(raw) for key, raw in file.operations.items()}
    kept = {key: operations[key] for key in operations if wanted is None or key in wanted}
    description = {
        "metadata": file.metadata,
        "operations": {key: _operation_traits(value) for key, value in kept.items()},
        "shapes": _closure(file.shapes, _shapes_of(kept.values())),
    }
    inner = model.ServiceModel(description, name)
    routes = list(_rest_routes(operations, file.shapes)) if _is_rest(file.metadata) else []
    return ServiceModel(name, inner, operations, _error_statuses(file.shapes), routes, _absences(operations))


def _model_path(name: str) -> Path:
    # Straight from the package, not through botocore's loader: that one also looks below ~/.aws/models.
    directory = Path(botocore.__file__).parent / "data" / name
    if not name.replace("-", "").isalnum() or not directory.is_dir():
        raise LookupError(f"no AWS service is called {name}")
    newest = max(version for version in directory.iterdir() if version.is_dir())
    return newest / "service-2.json.gz"


def _is_rest(metadata: Mapping[str, Any]) -> bool:
    return any(protocol.startswith("rest-") for protocol in metadata["protocols"])


def _operation_traits(operation: dict[str, Any]) -> dict[str, Any]:
    """Without the errors: their shapes are not kept, faults are serialized without the model."""
    return {key: value for key, value in operation.items() if key not in ("errors", *_IGNORED_TRAITS)}


def _shapes_of(operations: Collection[dict[str, Any]]) -> set[str]:
    sides = (operation.get(side) for operation in operations for side in ("input", "output"))
    return {side["shape"] for side in sides if side}


def _closure(shapes: Mapping[str, msgspec.Raw], roots: set[str]) -> dict[str, Any]:
    """The shapes reachable from `roots`, without their documentation."""
    found: dict[str, Any] = {}
    pending = sorted(roots)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found[name] = _shape_traits(msgspec.json.decode(shapes[name]))
        pending.extend(reference["shape"] for reference in _references(found[name]))
    return found


def _shape_traits(shape: dict[str, Any]) -> dict[str, Any]:
    traits = _without_ignored(shape)
    if "members" in traits:
        traits["members"] = {name: _without_ignored(ref) for name, ref in traits["members"].items()}
    for role in ("member", "key", "value"):
        if role in traits:
            traits[role] = _without_ignored(traits[role])
    return traits


def _without_ignored(traits: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in traits.items() if key not in _IGNORED_TRAITS}


def _references(shape: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from shape.get("members", {}).values()
    for role in ("member", "key", "value"):
        if role in shape:
            yield shape[role]


def _error_statuses(shapes: Mapping[str, msgspec.Raw]) -> dict[str, int]:
    statuses: dict[str, int] = {}
    for name, raw in shapes.items():
        traits = decode_json(raw, _ErrorTraits)
        if traits.exception and "httpStatusCode" in traits.error:
            statuses[traits.error.get("code", name)] = traits.error["httpStatusCode"]
    return statuses


def _absences(operations: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, operation in operations.items():
        errors = [error["shape"] for error in operation.get("errors", ())]
        if name.startswith("Describe") and "ResourceNotFound" in errors:
            found[name] = "ResourceNotFound"
    return found


def _rest_routes(
    operations: Mapping[str, dict[str, Any]], shapes: Mapping[str, msgspec.Raw]
) -> Iterator[RestRoute]:
    for name, operation in operations.items():
        shape = msgspec.json.decode(shapes[operation["input"]["shape"]]) if "input" in operation else {}
        yield RestRoute.parse(
            name,
            method=operation["http"]["method"],
            request_uri=operation["http"]["requestUri"],
            required_query=_bound_names(shape, "querystring", is_required=True),
            optional_query=_bound_names(shape, "querystring", is_required=False),
            required_headers={name.lower() for name in _bound_names(shape, "header", is_required=True)},
            is_deprecated=bool(operation.get("deprecated")),
        )


def _bound_names(shape: Mapping[str, Any], location: str, *, is_required: bool) -> set[str]:
    """The wire names of the members that travel in the query or in headers."""
    return {
        traits.get("locationName", name)
        for name, traits in shape.get("members", {}).items()
        if traits.get("location") == location and (name in shape.get("required", ())) == is_required
    }
