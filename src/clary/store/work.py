"""Work: which resources want to be reconciled, when, and who has the right to do it now (the lease).

A wish that comes while somebody works is not lost: `wishes` counts them, and `finish` leaves the key due when the
count grew since it was taken. A key without work has no row.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clary.domain.clock import Clock
from clary.store import tables
from clary.store.records import from_micros, to_micros

_W = tables.work.c


class LeaseLost(Exception):
    """Another worker has the key now: whatever this one decided no longer counts."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to reconcile one resource for a while."""

    kind: str
    uid: str
    token: str
    wishes: int
    attempts: int


class Work:
    """The table inside one transaction. `has_wished` tells the store whether to wake the reconcilers."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self.has_wished = False

    def wish(self, kind: str, uid: str) -> None:
        """Makes the key due now."""
        insert = postgresql_insert if self._connection.dialect.name == "postgresql" else sqlite_insert
        now = to_micros(self._clock.now())
        self._connection.execute(
            insert(tables.work)
            .values(kind=kind, uid=uid, due_at=now, wishes=1, attempts=0, lease_token="", lease_until=0)
            .on_conflict_do_update(
                index_elements=["kind", "uid"], set_={"due_at": now, "wishes": _W.wishes + 1, "attempts": 0}
            )
        )
        self.has_wished = True

    def wish_all(self, kind: str, *, but: Collection[str] = ()) -> None:
        """Makes every resource of a kind due now, except in these statuses."""
        resources = tables.resources.c
        uids = self._connection.execute(
            sa.select(resources.uid).where(resources.kind == kind, resources.status.not_in(but))
        ).scalars()
        for uid in list(uids):
            self.wish(kind, uid)

    def next_due(self) -> datetime | None:
        """When the next key that nobody holds is due; None when there is none."""
        now = to_micros(self._clock.now())
        free = sa.case((_W.lease_until > now, _W.lease_until), else_=_W.due_at)
        soonest = self._connection.execute(sa.select(sa.func.min(free))).scalar()
        return None if soonest is None else from_micros(soonest)

    def take(self, limit: int, lease_s: float) -> list[Lease]:
        """Leases on the keys that have been due longest and that nobody holds."""
        now = self._clock.now()
        rows = self._connection.execute(
            sa.select(_W.kind, _W.uid, _W.wishes, _W.attempts)
            .where(_W.due_at <= to_micros(now), _W.lease_until <= to_micros(now))
            .order_by(_W.due_at)
            .limit(limit)
        ).all()
        leases = [Lease(row[0], row[1], secrets.token_hex(16), row[2], row[3]) for row in rows]
        until = to_micros(now + timedelta(seconds=lease_s))
        for lease in leases:
            self._connection.execute(
                tables.work.update()
                .where(_W.kind == lease.kind, _W.uid == lease.uid)
                .values(lease_token=lease.token, lease_until=until)
            )
        return leases

    def hold(self, lease: Lease, lease_s: float) -> None:
        """Renews the lease, in the transaction that relies on it. Raises `LeaseLost`."""
        until = to_micros(self._clock.now() + timedelta(seconds=lease_s))
        if self._connection.execute(self._held(lease).values(lease_until=until)).rowcount != 1:
            raise LeaseLost(f"{lease.kind} {lease.uid}")

    def finish(self, lease: Lease, again_after_s: float | None, *, has_failed: bool = False) -> None:
        """Gives the lease back; the key is due again after that time, at once if somebody wished meanwhile."""
        now = self._clock.now()
        if again_after_s is None:
            done = tables.work.delete().where(
                _W.kind == lease.kind,
                _W.uid == lease.uid,
                _W.lease_token == lease.token,
                _W.wishes == lease.wishes,
            )
            if self._connection.execute(done).rowcount == 1:
                return
        due = to_micros(now + timedelta(seconds=again_after_s or 0.0))
        self._connection.execute(
            self._held(lease).values(
                lease_token="",
                lease_until=0,
                attempts=sa.case(
                    (_W.wishes == lease.wishes, lease.attempts + 1 if has_failed else 0), else_=0
                ),
                due_at=sa.case((_W.wishes == lease.wishes, due), else_=to_micros(now)),
            )
        )

    def release_all(self) -> None:
        """Ends every lease. Only for a store that one process has to itself: their holders are dead."""
        self._connection.execute(tables.work.update().values(lease_token="", lease_until=0))

    def _held(self, lease: Lease) -> sa.Update:
        return tables.work.update().where(
            _W.kind == lease.kind, _W.uid == lease.uid, _W.lease_token == lease.token
        )
