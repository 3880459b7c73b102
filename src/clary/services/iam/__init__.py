"""IAM: the one role there is. `resources` makes all that answers."""

from datetime import datetime

from clary.services.iam.roles import Roles


def resources(created_at: datetime) -> tuple[object, ...]:
    """`created_at` is when this server's data began."""
    return (Roles(created_at),)
