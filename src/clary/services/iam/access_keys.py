"""Users' access keys. A new one is shown once, and answers when every gateway has it."""

import secrets
from collections.abc import Callable
from dataclasses import replace

from clary.services.iam.identities import Identities
from clary.services.iam.kinds import (
    ACCESS_KEY,
    USER,
    Key,
    everything,
    find,
    insert,
    limit_exceeded,
    no_such,
    page,
    require,
)
from clary.services.iam.users import name_or_self
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes

MOST_KEYS = 2
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class AccessKeys:
    def __init__(self, store: Store, identities: Identities, new_id: Callable[[], str]) -> None:
        self._store = store
        self._identities = identities
        self._new_id = new_id

    @operation("CreateAccessKey")
    def create_access_key(
        self, call: Call, params: shapes.CreateAccessKeyRequest
    ) -> shapes.CreateAccessKeyResponse:
        access_key_id = "AKIA" + "".join(secrets.choice(_ALPHABET) for _ in range(16))
        secret = secrets.token_urlsafe(30)
        with self._store.write() as tx:
            user = require(tx, call, USER, name_or_self(call, params.get("UserName"))).name
            if len(_keys_of(tx, call, user)) >= MOST_KEYS:
                raise limit_exceeded(f"Cannot exceed quota for AccessKeysPerUser: {MOST_KEYS}")
            key = Key(user, secret)
            created = insert(tx, call.account, ACCESS_KEY, self._new_id(), access_key_id, "/", key)
        self._identities.publish()
        return {
            "AccessKey": {
                "UserName": user,
                "AccessKeyId": access_key_id,
                "Status": "Active",
                "SecretAccessKey": secret,
                "CreateDate": created.created_at,
            }
        }

    @operation("ListAccessKeys")
    def list_access_keys(
        self, call: Call, params: shapes.ListAccessKeysRequest
    ) -> shapes.ListAccessKeysResponse:
        with self._store.read() as tx:
            user = require(tx, call, USER, name_or_self(call, params.get("UserName"))).name
            found = _keys_of(tx, call, user)
        shown, more = page(found, params, [key.name for key in found])
        metadata: list[shapes.AccessKeyMetadata] = [
            {
                "UserName": user,
                "AccessKeyId": key.name,
                "Status": "Active" if key.spec_as(Key).is_active else "Inactive",
                "CreateDate": key.created_at,
            }
            for key in shown
        ]
        return {"AccessKeyMetadata": metadata, **more}  # type: ignore[typeddict-item]

    @operation("UpdateAccessKey")
    def update_access_key(self, call: Call, params: shapes.UpdateAccessKeyRequest) -> None:
        is_active = params["Status"] == "Active"
        with self._store.write(on_full_disk=not is_active) as tx:  # as urgent as to delete it
            key = _require(tx, call, name_or_self(call, params.get("UserName")), params["AccessKeyId"])
            tx.resources.update(key, spec=replace(key.spec_as(Key), is_active=is_active))
        self._identities.publish()

    @operation("DeleteAccessKey")
    def delete_access_key(self, call: Call, params: shapes.DeleteAccessKeyRequest) -> None:
        with self._store.write(on_full_disk=True) as tx:
            key = _require(tx, call, name_or_self(call, params.get("UserName")), params["AccessKeyId"])
            tx.resources.delete(key.uid)
        self._identities.publish()


def _keys_of(tx: Transaction, call: Call, user: str) -> list[Resource]:
    return [key for key in everything(tx, call, ACCESS_KEY) if key.spec_as(Key).user == user]


def _require(tx: Transaction, call: Call, user: str, access_key_id: str) -> Resource:
    name = require(tx, call, USER, user).name
    key = find(tx, call, ACCESS_KEY, access_key_id)
    if key is None or key.spec_as(Key).user != name:
        raise no_such(f"The Access Key with id {access_key_id} cannot be found")
    return key
