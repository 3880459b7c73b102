"""Users: named principals with keys of their own and no rights but those that policies give them."""

from collections.abc import Callable

from clary.domain.faults import Fault
from clary.domain.principals import unique_id
from clary.services.iam.identities import Identities
from clary.services.iam.kinds import (
    ACCESS_KEY,
    USER,
    Entity,
    Key,
    delete_conflict,
    everything,
    insert,
    page,
    require,
    tag_list,
    tag_map,
)
from clary.services.iam.policies import require_policy
from clary.store import Resource, Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes


class Users:
    def __init__(self, store: Store, identities: Identities, new_id: Callable[[], str]) -> None:
        self._store = store
        self._identities = identities
        self._new_id = new_id

    @operation("CreateUser")
    def create_user(self, call: Call, params: shapes.CreateUserRequest) -> shapes.CreateUserResponse:
        path, boundary = params.get("Path", "/"), params.get("PermissionsBoundary", "")
        user = Entity(path=path, tags=tag_map(params.get("Tags", [])), boundary=boundary)
        with self._store.write() as tx:
            if boundary:
                require_policy(tx, call, boundary)
            created = insert(tx, call.account, USER, self._new_id(), params["UserName"], path, user)
        self._identities.publish()
        return {"User": _shown(created)}

    @operation("GetUser")
    def get_user(self, call: Call, params: shapes.GetUserRequest) -> shapes.GetUserResponse:
        with self._store.read() as tx:
            return {"User": _shown(require(tx, call, USER, name_or_self(call, params.get("UserName"))))}

    @operation("ListUsers")
    def list_users(self, call: Call, params: shapes.ListUsersRequest) -> shapes.ListUsersResponse:
        prefix = params.get("PathPrefix", "/")
        with self._store.read() as tx:
            found = [u for u in everything(tx, call, USER) if u.spec_as(Entity).path.startswith(prefix)]
        shown, more = page(found, params, [user.name for user in found])
        users = [_without_tags(_shown(user)) for user in shown]
        return {"Users": users, **more}  # type: ignore[typeddict-item]

    @operation("DeleteUser")
    def delete_user(self, call: Call, params: shapes.DeleteUserRequest) -> None:
        with self._store.write(on_full_disk=True) as tx:
            user = require(tx, call, USER, params["UserName"])
            entity = user.spec_as(Entity)
            if any(k.spec_as(Key).user == user.name for k in everything(tx, call, ACCESS_KEY)):
                raise delete_conflict("Cannot delete entity, must delete access keys first.")
            check_deletable(entity)
            tx.resources.delete(user.uid)
        self._identities.publish()

    @operation("ListGroupsForUser")
    def list_groups_for_user(
        self, call: Call, params: shapes.ListGroupsForUserRequest
    ) -> shapes.ListGroupsForUserResponse:
        """There are no groups, so no user is in one."""
        with self._store.read() as tx:
            require(tx, call, USER, params["UserName"])
        return {"Groups": [], "IsTruncated": False}


def name_or_self(call: Call, name: str | None) -> str:
    """The user that a call names; without a name, the user who calls."""
    if name is not None:
        return name
    if not call.principal.name:
        raise Fault("ValidationError", "Must specify userName when calling with non-User credentials")
    return call.principal.name


def check_deletable(entity: Entity) -> None:
    if entity.attached:
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if entity.inline:
        raise delete_conflict("Cannot delete entity, must delete policies first.")


def _shown(user: Resource) -> shapes.User:
    entity = user.spec_as(Entity)
    shown: shapes.User = {
        "Path": entity.path,
        "UserName": user.name,
        "UserId": unique_id("AIDA", user.arn),
        "Arn": user.arn,
        "CreateDate": user.created_at,
    }
    if entity.boundary:
        shown["PermissionsBoundary"] = shown_boundary(entity)
    if entity.tags:
        shown["Tags"] = tag_list(entity.tags)
    return shown


def shown_boundary(entity: Entity) -> shapes.AttachedPermissionsBoundary:
    return {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": entity.boundary}


def _without_tags(user: shapes.User) -> shapes.User:
    """Lists show neither tags nor boundaries."""
    user.pop("Tags", None)
    user.pop("PermissionsBoundary", None)
    return user
