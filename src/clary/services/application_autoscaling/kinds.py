"""How targets, policies and scheduled actions are found, in the words of the service when they are not."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from clary.domain.faults import Fault, not_supported, validation
from clary.domain.scaling import (
    INSTANCE_COUNT,
    NAMESPACE,
    SCALABLE_TARGET_KIND,
    parse_resource_id,
)
from clary.services import page_tokens
from clary.store import Resource, Transaction
from clary.wire.operations import Call

MOST_RESULTS = 50

T = TypeVar("T")


def check_scaled(params: Mapping[str, Any]) -> None:
    """Raises for what this server does not scale."""
    namespace, dimension = params["ServiceNamespace"], params["ScalableDimension"]
    if namespace != NAMESPACE:
        raise not_supported(f"Scaling of the service namespace {namespace}")
    if dimension.partition(":")[0] != NAMESPACE:
        raise unsupported()
    if dimension != INSTANCE_COUNT:
        raise not_supported(f"The scalable dimension {dimension}")
    if parse_resource_id(params["ResourceId"]) is None:
        raise unsupported()


def find_target(tx: Transaction, call: Call, resource_id: str) -> Resource | None:
    return tx.resources.find(call.account, call.region, SCALABLE_TARGET_KIND, resource_id)


def require_target(tx: Transaction, call: Call, params: Mapping[str, Any], verb: str) -> Resource:
    """The target that a request names. `verb` is what the service says of a missing one: found, registered."""
    found = None
    if params["ServiceNamespace"] == NAMESPACE and params["ScalableDimension"] == INSTANCE_COUNT:
        found = find_target(tx, call, params["ResourceId"])
    if found is None:
        raise object_not_found(f"No scalable target {verb} for {place(params)}")
    return found


def place(params: Mapping[str, Any]) -> str:
    return (
        f"service namespace: {params['ServiceNamespace']}, resource ID: {params['ResourceId']}, "
        f"scalable dimension: {params['ScalableDimension']}"
    )


def all_of(tx: Transaction, call: Call, kind: str, params: Mapping[str, Any]) -> list[Resource]:
    """All of a kind that a Describe may be about, oldest first. Of other namespaces there is nothing."""
    if params["ServiceNamespace"] != NAMESPACE:
        return []
    if params.get("ScalableDimension", INSTANCE_COUNT) != INSTANCE_COUNT:
        return []
    if "ScalableDimension" in params and "ResourceId" not in params and "ResourceIds" not in params:
        raise validation("ResourceId is required when ScalableDimension is given.")
    found = (r for r in tx.resources.all(kind) if (r.account, r.region) == (call.account, call.region))
    return sorted(found, key=lambda resource: (resource.created_at, resource.uid))


def page(
    items: Sequence[T], keys: Sequence[str], params: Mapping[str, Any]
) -> tuple[list[T], dict[str, str]]:
    """One page of `items`, which `keys` name, and the NextToken member where more follow.

    A page begins behind the item that the one before ended with. Has that item gone meanwhile, the listing starts
    again: rather twice than never.
    """
    limit = params.get("MaxResults", MOST_RESULTS)
    if not 1 <= limit <= MOST_RESULTS:
        raise validation(f"MaxResults must be between 1 and {MOST_RESULTS}.")
    asked = {name: value for name, value in params.items() if name not in ("NextToken", "MaxResults")}
    start = 0
    if "NextToken" in params:
        position = page_tokens.read(params["NextToken"], asked)
        if not isinstance(position, str):
            raise Fault("InvalidNextTokenException", "The next token supplied is invalid.")
        start = keys.index(position) + 1 if position in keys else 0
    shown = list(items[start : start + limit])
    if start + limit >= len(items):
        return shown, {}
    return shown, {"NextToken": page_tokens.make(asked, keys[start + limit - 1])}


def object_not_found(message: str) -> Fault:
    return Fault("ObjectNotFoundException", message)


def too_many(what: str, limit: int) -> Fault:
    return Fault("LimitExceededException", f"A scalable target has at most {limit} {what}.")


def unsupported() -> Fault:
    return validation("Unsupported service namespace, resource type or scalable dimension")
