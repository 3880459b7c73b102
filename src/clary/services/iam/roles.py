"""Roles: rights without a key of their own, for instances and for whoever their trust policy names."""

from collections.abc import Callable
from dataclasses import replace

from clary.domain.faults import Fault
from clary.domain.principals import DEFAULT_ROLE_NAME, role_id
from clary.services.iam.identities import Identities
from clary.services.iam.kinds import (
    ROLE,
    Entity,
    check_document,
    encoded,
    everything,
    insert,
    page,
    require,
    tag_list,
    tag_map,
)
from clary.services.iam.policies import require_policy
from clary.services.iam.users import check_deletable, shown_boundary
from clary.store import Resource, Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes


class Roles:
    def __init__(self, store: Store, identities: Identities, new_id: Callable[[], str]) -> None:
        self._store = store
        self._identities = identities
        self._new_id = new_id

    @operation("CreateRole")
    def create_role(self, call: Call, params: shapes.CreateRoleRequest) -> shapes.CreateRoleResponse:
        role = Entity(
            path=params.get("Path", "/"),
            tags=tag_map(params.get("Tags", [])),
            boundary=params.get("PermissionsBoundary", ""),
            trust=check_document(params["AssumeRolePolicyDocument"], "trust"),
            description=params.get("Description", ""),
            max_session_s=params.get("MaxSessionDuration", 3600),
        )
        with self._store.write() as tx:
            if role.boundary:
                require_policy(tx, call, role.boundary)
            created = insert(tx, call.account, ROLE, self._new_id(), params["RoleName"], role.path, role)
        self._identities.publish()
        return {"Role": _shown(created)}

    @operation("GetRole")
    def get_role(self, call: Call, params: shapes.GetRoleRequest) -> shapes.GetRoleResponse:
        with self._store.read() as tx:
            return {"Role": _shown(require(tx, call, ROLE, params["RoleName"]))}

    @operation("ListRoles")
    def list_roles(self, call: Call, params: shapes.ListRolesRequest) -> shapes.ListRolesResponse:
        prefix = params.get("PathPrefix", "/")
        with self._store.read() as tx:
            found = [r for r in everything(tx, call, ROLE) if r.spec_as(Entity).path.startswith(prefix)]
        shown, more = page(found, params, [role.name for role in found])
        return {"Roles": [_listed(_shown(role)) for role in shown], **more}  # type: ignore[typeddict-item]

    @operation("UpdateRole")
    def update_role(self, call: Call, params: shapes.UpdateRoleRequest) -> shapes.UpdateRoleResponse:
        with self._store.write() as tx:
            role = require(tx, call, ROLE, params["RoleName"])
            entity = role.spec_as(Entity)
            changed = replace(
                entity,
                description=params.get("Description", entity.description),
                max_session_s=params.get("MaxSessionDuration", 3600),
            )
            tx.resources.update(role, spec=changed)
        self._identities.publish()
        return {}

    @operation("UpdateAssumeRolePolicy")
    def update_assume_role_policy(self, call: Call, params: shapes.UpdateAssumeRolePolicyRequest) -> None:
        trust = check_document(params["PolicyDocument"], "trust")
        with self._store.write() as tx:
            role = require(tx, call, ROLE, params["RoleName"])
            tx.resources.update(role, spec=replace(role.spec_as(Entity), trust=trust))
        self._identities.publish()

    @operation("DeleteRole")
    def delete_role(self, call: Call, params: shapes.DeleteRoleRequest) -> None:
        with self._store.write(on_full_disk=True) as tx:
            role = require(tx, call, ROLE, params["RoleName"])
            if role.name == DEFAULT_ROLE_NAME:
                raise Fault(
                    "UnmodifiableEntity",
                    f"Cannot perform the operation on the protected role '{role.name}': this server made it for "
                    "its instances.",
                )
            check_deletable(role.spec_as(Entity))
            tx.resources.delete(role.uid)
        self._identities.publish()

    @operation("ListInstanceProfilesForRole")
    def list_instance_profiles_for_role(
        self, call: Call, params: shapes.ListInstanceProfilesForRoleRequest
    ) -> shapes.ListInstanceProfilesForRoleResponse:
        """There are no instance profiles, so no role is in one."""
        with self._store.read() as tx:
            require(tx, call, ROLE, params["RoleName"])
        return {"InstanceProfiles": [], "IsTruncated": False}


def _shown(role: Resource) -> shapes.Role:
    entity = role.spec_as(Entity)
    shown: shapes.Role = {
        "Path": entity.path,
        "RoleName": role.name,
        "RoleId": role_id(role.name),
        "Arn": role.arn,
        "CreateDate": role.created_at,
        "AssumeRolePolicyDocument": encoded(entity.trust),
        "MaxSessionDuration": entity.max_session_s,
    }
    if entity.description:
        shown["Description"] = entity.description
    if entity.boundary:
        shown["PermissionsBoundary"] = shown_boundary(entity)
    if entity.tags:
        shown["Tags"] = tag_list(entity.tags)
    return shown


def _listed(role: shapes.Role) -> shapes.Role:
    """Lists show neither tags nor boundaries."""
    role.pop("Tags", None)
    role.pop("PermissionsBoundary", None)
    return role
