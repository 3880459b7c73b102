"""From what is kept to what counts: the users, keys and roles that gateways and control go by.

After every change all of them are written to one file, control's own copy is replaced, and the call returns when
every gateway has read the file. So a new key answers at once everywhere, and a deleted one nowhere. Where a disk or a
gateway refuses, the caller is told, and it is done again until it is done (`catch_up`).
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from clary.domain.faults import Fault
from clary.domain.principals import DEFAULT_ROLE_NAME
from clary.domain.rights import Access, Rights
from clary.links import identities as files
from clary.links.identities import UserKey
from clary.services.iam import aws_managed
from clary.services.iam.kinds import (
    ACCESS_KEY,
    POLICY,
    REGION,
    ROLE,
    USER,
    Entity,
    Key,
    ManagedPolicy,
    insert,
)
from clary.store import Resource, Store, Transaction
from clary.wire.sessions import KeyRing


class Identities:
    """See above. Thread-safe."""

    def __init__(
        self,
        store: Store,
        keyring: KeyRing,
        keys_dir: Path,
        new_id: Callable[[], str],
        announce: Callable[[], None],
    ) -> None:
        """`announce` returns when every gateway has read the file."""
        self._store = store
        self._keyring = keyring
        self._keys_dir = keys_dir
        self._new_id = new_id
        self._announce = announce
        self._lock = threading.Lock()
        self._is_behind = False
        self.rights = Rights()

    def publish(self) -> None:
        """Makes what is kept count everywhere."""
        try:
            self._write()
            self._announce()
        except BaseException:
            self._is_behind = True
            raise

    def catch_up(self) -> None:
        """Does again what `publish` could not finish. To be called now and then."""
        if self._is_behind:
            self._is_behind = False  # before: what fails meanwhile, here or elsewhere, is seen the next time
            self.publish()

    def apply(self) -> None:
        """Makes what is kept count here, and for every gateway that starts or connects from now on."""
        with self._lock:
            self._ensure_default_role()
            with self._store.read() as tx:
                found = snapshot(tx)
            # First here, where nothing can fail: what was deleted is refused by control in any case.
            self._keyring.use_keys((k.access_key_id, k.secret_access_key, k.user_arn) for k in found.keys)
            self.rights = Rights.from_accesses(found.accesses)
            files.write(self._keys_dir, found)

    def _write(self) -> None:
        try:
            self.apply()
        except OSError as error:
            raise not_everywhere(
                f"the file for the gateways could not be written, {error.strerror}"
            ) from error

    def _ensure_default_role(self) -> None:
        account = self._keyring.account
        with self._store.read() as tx:
            if tx.resources.find(account, REGION, ROLE.name, DEFAULT_ROLE_NAME) is not None:
                return
        role = Entity(
            attached=(aws_managed.ADMINISTRATOR,),
            trust=json.dumps(default_trust(account)),
            description="The role this server's instances run with.",
            max_session_s=43200,
        )
        with self._store.write(on_full_disk=True) as tx:  # after a reset, which makes room
            insert(tx, account, ROLE, self._new_id(), DEFAULT_ROLE_NAME, "/", role)


def not_everywhere(why: str) -> Fault:
    """What is changed is kept, and a gateway may still go by what was before."""
    return Fault(
        "ServiceUnavailable",
        f"It is written down, and not certain that every gateway goes by it yet: {why}. Try again.",
        503,
    )


def default_trust(account: str) -> dict[str, object]:
    """Instances run with the default role, and whoever of the account has the right may assume it."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
            for principal in ({"Service": "sagemaker.amazonaws.com"}, {"AWS": f"arn:aws:iam::{account}:root"})
        ],
    }


def snapshot(tx: Transaction) -> files.Identities:
    """All that gateways must know, as the transaction sees it."""
    users = {(user.account, user.name): user for user in tx.resources.all(USER.name)}
    keys = []
    for resource in tx.resources.all(ACCESS_KEY.name):
        key, user = resource.spec_as(Key), users.get((resource.account, resource.spec_as(Key).user))
        if key.is_active and user is not None:
            keys.append(UserKey(resource.name, key.secret, user.arn))
    managed = {policy.arn: policy for policy in tx.resources.all(POLICY.name)}
    entities = [*users.values(), *tx.resources.all(ROLE.name)]
    return files.Identities(
        keys=tuple(keys), accesses=tuple(access_of(entity, managed) for entity in entities)
    )


def access_of(resource: Resource, managed: dict[str, Resource]) -> Access:
    """What counts of a user or role. `managed` are the account's own policies by ARN."""
    entity = resource.spec_as(Entity)
    return Access(
        arn=resource.arn,
        policies=(*entity.inline.values(), *(_document(arn, managed) for arn in entity.attached)),
        boundary=_document(entity.boundary, managed) if entity.boundary else "",
        trust=entity.trust,
        max_session_s=entity.max_session_s,
    )


def _document(arn: str, managed: dict[str, Resource]) -> str:
    found = aws_managed.find(arn)
    return found.document if found is not None else managed[arn].spec_as(ManagedPolicy).document
