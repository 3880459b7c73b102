"""GetStatus, GetHealth and Reset."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from clary.domain.clock import Clock
from clary.domain.endpoints import EndpointSpec, EndpointState, Variant
from clary.domain.faults import Fault, access_denied, not_supported
from clary.domain.resources import ENDPOINT
from clary.services.clary.progress import progress
from clary.settings import Settings
from clary.store import PageQuery, Resource, Store, Transaction
from clary.wire.operations import Call, operation

MOST_ENDPOINTS = 100


class Status:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        *,
        reset: Callable[[], None],
        parts: Callable[[], dict[str, object]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._reset = reset
        self._parts = parts

    @operation("GetStatus")
    def get_status(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        """The newest endpoints of the caller's account and region, and how much there is of everything."""
        with self._store.read() as tx:
            counts = tx.resources.counts(call.account)
            page = tx.resources.page(
                PageQuery(call.account, call.region, ENDPOINT.name, limit=MOST_ENDPOINTS)
            )
            endpoints = [tx.resources.get(item.uid) for item in page]
            shown = [self._endpoint(tx, endpoint) for endpoint in endpoints if endpoint is not None]
        disk = shutil.disk_usage(self._settings.data_dir)
        return {
            "Account": call.account,
            "Region": call.region,
            "DataDir": str(self._settings.data_dir),
            "Ephemeral": self._settings.ephemeral,
            "Disk": {"TotalBytes": disk.total, "FreeBytes": disk.free},
            "Counts": _counted(counts),
            "Endpoints": shown,
            "Parts": self._parts(),
        }

    @operation("GetHealth")
    def get_health(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answers when the store does."""
        with self._store.read() as tx:
            tx.resources.counts(call.account)
        return {"Status": "Healthy", "Parts": self._parts()}

    @operation("Reset")
    def reset(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        if not self._settings.ephemeral:
            raise not_supported("Reset outside ephemeral mode (`clary up --ephemeral`)")
        if not call.principal.is_root:
            raise access_denied("Reset must be signed with the root key.")
        try:
            self._reset()
        except OSError as error:
            raise Fault("InternalFailure", f"Reset did not finish: {error}. Try again.", 500) from error
        return {}

    def _endpoint(self, tx: Transaction, endpoint: Resource) -> dict[str, Any]:
        spec, state = endpoint.spec_as(EndpointSpec), endpoint.state_as(EndpointState)
        rows = tx.instances.of(endpoint.uid)
        fleet = state.fleet or spec.fleet
        ready = Counter(
            row.slot.variant
            for row in rows
            if row.slot.fleet == fleet.id and row.is_wanted and row.phase == "ready"
        )
        shown: dict[str, Any] = {
            "Name": endpoint.name,
            "Arn": endpoint.arn,
            "Status": endpoint.status,
            "Config": fleet.config_name,
            "CreatedAt": endpoint.created_at.isoformat(),
            "AgeSeconds": round((self._clock.now() - endpoint.created_at).total_seconds(), 3),
            "Variants": [_variant(v, ready[v.name]) for v in fleet.variants],
            "Instances": [
                {"Id": row.id, "Variant": row.slot.variant, "Phase": row.phase, "Wanted": row.is_wanted}
                for row in rows
            ],
        }
        if under_way := progress(spec, state, rows):
            shown["Deployment"] = under_way
        if state.problem is not None:
            shown["FailureReason"] = state.problem.reason
        return shown


def _variant(variant: Variant, ready: int) -> dict[str, Any]:
    shown = {
        "Name": variant.name,
        "Model": variant.model_name,
        "Weight": variant.weight,
        "InstanceCount": variant.count,
        "Ready": ready,
    }
    if variant.models is not None:
        return {**shown, "Mode": "MultiModel"}
    if not variant.containers:
        return shown
    mode = "Direct" if variant.is_direct else "Serial"
    return {**shown, "Mode": mode, "Containers": [each.name for each in variant.containers]}


def _counted(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """kind → status → how many; kinds without a status have it empty, shown as `Total` alone."""
    shown: dict[str, dict[str, int]] = {}
    for (kind, status), count in sorted(counts.items()):
        of_kind = shown.setdefault(kind, {"Total": 0})
        of_kind["Total"] += count
        if status:
            of_kind[status] = count
    return shown
