"""The policies of users and roles: inline ones, which are theirs alone, and managed ones that are attached."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clary.services.iam.identities import Identities
from clary.services.iam.kinds import (
    ROLE,
    USER,
    Entity,
    Kind,
    check_document,
    encoded,
    limit_exceeded,
    no_such,
    page,
    require,
)
from clary.services.iam.policies import require_policy
from clary.store import Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes

MOST_ATTACHED = 10


class _EntityPolicies:
    """What is the same for users and roles. `_member` is the request member that names one."""

    _kind: Kind
    _member: str

    def __init__(self, store: Store, identities: Identities) -> None:
        self._store = store
        self._identities = identities

    def _read(self, call: Call, params: Mapping[str, Any]) -> Entity:
        with self._store.read() as tx:
            return require(tx, call, self._kind, params[self._member]).spec_as(Entity)

    def _inline(self, call: Call, params: Mapping[str, Any]) -> str:
        name = params["PolicyName"]
        found = self._read(call, params).inline.get(name)
        if found is None:
            raise self._no_inline(name)
        return encoded(found)

    def _put(self, call: Call, params: Mapping[str, Any]) -> None:
        document = check_document(params["PolicyDocument"])
        with self._store.write() as tx:
            found = require(tx, call, self._kind, params[self._member])
            entity = found.spec_as(Entity)
            inline = {**entity.inline, params["PolicyName"]: document}
            tx.resources.update(found, spec=replace(entity, inline=inline))
        self._identities.publish()

    def _delete(self, call: Call, params: Mapping[str, Any]) -> None:
        with self._store.write(on_full_disk=True) as tx:
            found = require(tx, call, self._kind, params[self._member])
            entity = found.spec_as(Entity)
            left = {name: text for name, text in entity.inline.items() if name != params["PolicyName"]}
            if len(left) == len(entity.inline):
                raise self._no_inline(params["PolicyName"])
            tx.resources.update(found, spec=replace(entity, inline=left))
        self._identities.publish()

    def _names(self, call: Call, params: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
        names = sorted(self._read(call, params).inline)
        return page(names, params, names)

    def _attach(self, call: Call, params: Mapping[str, Any]) -> None:
        arn = params["PolicyArn"]
        with self._store.write() as tx:
            found = require(tx, call, self._kind, params[self._member])
            require_policy(tx, call, arn)
            entity = found.spec_as(Entity)
            if arn in entity.attached:
                return
            if len(entity.attached) >= MOST_ATTACHED:
                raise limit_exceeded(
                    f"Cannot exceed quota for PoliciesPer{self._kind.noun.capitalize()}: {MOST_ATTACHED}"
                )
            tx.resources.update(found, spec=replace(entity, attached=(*entity.attached, arn)))
        self._identities.publish()

    def _detach(self, call: Call, params: Mapping[str, Any]) -> None:
        arn = params["PolicyArn"]
        with self._store.write(on_full_disk=True) as tx:
            found = require(tx, call, self._kind, params[self._member])
            entity = found.spec_as(Entity)
            if arn not in entity.attached:
                raise no_such(f"Policy {arn} was not found.")
            left = tuple(each for each in entity.attached if each != arn)
            tx.resources.update(found, spec=replace(entity, attached=left))
        self._identities.publish()

    def _attached(
        self, call: Call, params: Mapping[str, Any]
    ) -> tuple[list[shapes.AttachedPolicy], dict[str, Any]]:
        arns = sorted(self._read(call, params).attached)
        shown, more = page(arns, params, arns)
        return [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in shown], more

    def _no_inline(self, name: str) -> Exception:
        return no_such(f"The {self._kind.noun} policy with name {name} cannot be found.")


class UserPolicies(_EntityPolicies):
    _kind, _member = USER, "UserName"

    @operation("PutUserPolicy")
    def put_user_policy(self, call: Call, params: shapes.PutUserPolicyRequest) -> None:
        self._put(call, params)

    @operation("GetUserPolicy")
    def get_user_policy(
        self, call: Call, params: shapes.GetUserPolicyRequest
    ) -> shapes.GetUserPolicyResponse:
        document = self._inline(call, params)
        return {
            "UserName": params["UserName"],
            "PolicyName": params["PolicyName"],
            "PolicyDocument": document,
        }

    @operation("DeleteUserPolicy")
    def delete_user_policy(self, call: Call, params: shapes.DeleteUserPolicyRequest) -> None:
        self._delete(call, params)

    @operation("ListUserPolicies")
    def list_user_policies(
        self, call: Call, params: shapes.ListUserPoliciesRequest
    ) -> shapes.ListUserPoliciesResponse:
        names, more = self._names(call, params)
        return {"PolicyNames": names, **more}  # type: ignore[typeddict-item]

    @operation("AttachUserPolicy")
    def attach_user_policy(self, call: Call, params: shapes.AttachUserPolicyRequest) -> None:
        self._attach(call, params)

    @operation("DetachUserPolicy")
    def detach_user_policy(self, call: Call, params: shapes.DetachUserPolicyRequest) -> None:
        self._detach(call, params)

    @operation("ListAttachedUserPolicies")
    def list_attached_user_policies(
        self, call: Call, params: shapes.ListAttachedUserPoliciesRequest
    ) -> shapes.ListAttachedUserPoliciesResponse:
        attached, more = self._attached(call, params)
        return {"AttachedPolicies": attached, **more}  # type: ignore[typeddict-item]


class RolePolicies(_EntityPolicies):
    _kind, _member = ROLE, "RoleName"

    @operation("PutRolePolicy")
    def put_role_policy(self, call: Call, params: shapes.PutRolePolicyRequest) -> None:
        self._put(call, params)

    @operation("GetRolePolicy")
    def get_role_policy(
        self, call: Call, params: shapes.GetRolePolicyRequest
    ) -> shapes.GetRolePolicyResponse:
        document = self._inline(call, params)
        return {
            "RoleName": params["RoleName"],
            "PolicyName": params["PolicyName"],
            "PolicyDocument": document,
        }

    @operation("DeleteRolePolicy")
    def delete_role_policy(self, call: Call, params: shapes.DeleteRolePolicyRequest) -> None:
        self._delete(call, params)

    @operation("ListRolePolicies")
    def list_role_policies(
        self, call: Call, params: shapes.ListRolePoliciesRequest
    ) -> shapes.ListRolePoliciesResponse:
        names, more = self._names(call, params)
        return {"PolicyNames": names, **more}  # type: ignore[typeddict-item]

    @operation("AttachRolePolicy")
    def attach_role_policy(self, call: Call, params: shapes.AttachRolePolicyRequest) -> None:
        self._attach(call, params)

    @operation("DetachRolePolicy")
    def detach_role_policy(self, call: Call, params: shapes.DetachRolePolicyRequest) -> None:
        self._detach(call, params)

    @operation("ListAttachedRolePolicies")
    def list_attached_role_policies(
        self, call: Call, params: shapes.ListAttachedRolePoliciesRequest
    ) -> shapes.ListAttachedRolePoliciesResponse:
        attached, more = self._attached(call, params)
        return {"AttachedPolicies": attached, **more}  # type: ignore[typeddict-item]
