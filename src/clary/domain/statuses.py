"""The statuses of every kind that has them, in the API's own words, and what may happen in each."""

from typing import Literal

EndpointStatus = Literal[
    "OutOfService",
    "Creating",
    "Updating",
    "SystemUpdating",
    "RollingBack",
    "InService",
    "Deleting",
    "Failed",
    "UpdateRollbackFailed",
]

ENDPOINT_IN_PROGRESS: frozenset[str] = frozenset(
    {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
)
"""Neither an update nor a deletion is accepted."""

ENDPOINT_UPDATABLE: frozenset[str] = frozenset({"InService", "UpdateRollbackFailed"})


def is_in_progress(status: str) -> bool:
    return status in ENDPOINT_IN_PROGRESS


def is_updatable(status: str) -> bool:
    return status in ENDPOINT_UPDATABLE
