"""IAM: users and their keys, roles, policies. `resources` makes all that answers; `Identities` tells everybody."""

from collections.abc import Callable, Mapping

from clary.services.iam.access_keys import AccessKeys
from clary.services.iam.attachments import RolePolicies, UserPolicies
from clary.services.iam.identities import Identities, not_everywhere
from clary.services.iam.policies import Policies
from clary.services.iam.roles import Roles
from clary.services.iam.simulation import Simulation
from clary.services.iam.tags import Tags
from clary.services.iam.users import Users
from clary.store import Store

__all__ = ["ACCEPTED_WITHOUT_EFFECT", "Identities", "not_everywhere", "resources"]

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "CreatePolicy": ("Tags",),
}
"""Operation → members that are kept, and shown where AWS shows them, and change nothing here."""


def resources(store: Store, identities: Identities, new_id: Callable[[], str]) -> tuple[object, ...]:
    """Everything that answers an operation of `iam`. `new_id` gives 32 hexadecimal digits."""
    return (
        Users(store, identities, new_id),
        AccessKeys(store, identities, new_id),
        UserPolicies(store, identities),
        Roles(store, identities, new_id),
        RolePolicies(store, identities),
        Tags(store),
        Policies(store, identities, new_id),
        Simulation(store),
    )
