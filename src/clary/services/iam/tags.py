"""Tags of users and roles: kept and shown, and nothing goes by them."""

from collections.abc import Callable
from dataclasses import replace

from clary.services.iam.kinds import ROLE, USER, Entity, Kind, require, tag_list, tag_map
from clary.store import Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes

_Change = Callable[[dict[str, str]], dict[str, str]]


class Tags:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("TagUser")
    def tag_user(self, call: Call, params: shapes.TagUserRequest) -> None:
        self._change(call, USER, params["UserName"], lambda tags: tag_map(params["Tags"], tags))

    @operation("TagRole")
    def tag_role(self, call: Call, params: shapes.TagRoleRequest) -> None:
        self._change(call, ROLE, params["RoleName"], lambda tags: tag_map(params["Tags"], tags))

    @operation("UntagUser")
    def untag_user(self, call: Call, params: shapes.UntagUserRequest) -> None:
        self._change(call, USER, params["UserName"], _without(params["TagKeys"]), on_full_disk=True)

    @operation("UntagRole")
    def untag_role(self, call: Call, params: shapes.UntagRoleRequest) -> None:
        self._change(call, ROLE, params["RoleName"], _without(params["TagKeys"]), on_full_disk=True)

    @operation("ListUserTags")
    def list_user_tags(self, call: Call, params: shapes.ListUserTagsRequest) -> shapes.ListUserTagsResponse:
        return {"Tags": self._list(call, USER, params["UserName"]), "IsTruncated": False}

    @operation("ListRoleTags")
    def list_role_tags(self, call: Call, params: shapes.ListRoleTagsRequest) -> shapes.ListRoleTagsResponse:
        return {"Tags": self._list(call, ROLE, params["RoleName"]), "IsTruncated": False}

    def _change(
        self, call: Call, kind: Kind, name: str, changed: _Change, *, on_full_disk: bool = False
    ) -> None:
        with self._store.write(on_full_disk=on_full_disk) as tx:
            found = require(tx, call, kind, name)
            entity = found.spec_as(Entity)
            tx.resources.update(found, spec=replace(entity, tags=changed(entity.tags)))

    def _list(self, call: Call, kind: Kind, name: str) -> list[shapes.Tag]:
        with self._store.read() as tx:
            return tag_list(require(tx, call, kind, name).spec_as(Entity).tags)


def _without(keys: list[str]) -> _Change:
    return lambda tags: {key: value for key, value in tags.items() if key not in keys}
