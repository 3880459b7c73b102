"""Notices on their way: a row for each subscriber of each notice, until it has arrived or is given up."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from clary.domain.clock import Clock
from clary.domain.notices import Notice
from clary.store import tables
from clary.store.records import decode, encode, from_micros, to_micros

_D = tables.deliveries.c


@dataclass(frozen=True, slots=True)
class Delivery:
    id: int
    notice: Notice
    attempts: int
    due_at: datetime
    is_endpoint_failing: bool  # this one, or another for the same subscription, has been tried before


class Deliveries:
    """The table inside one transaction."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    def add(self, subscription_uid: str, notice: Notice) -> None:
        now = to_micros(self._clock.now())
        self._connection.execute(
            tables.deliveries.insert().values(
                subscription_uid=subscription_uid,
                message=encode(notice),
                attempts=0,
                due_at=now,
                created_at=now,
            )
        )

    def next(self, subscription_uid: str) -> Delivery | None:
        """The one that is due first."""
        failing = sa.exists().where(_D.subscription_uid == subscription_uid, _D.attempts > 0)
        row = self._connection.execute(
            sa.select(_D.id, _D.message, _D.attempts, _D.due_at, sa.select(failing).scalar_subquery())
            .where(_D.subscription_uid == subscription_uid)
            .order_by(_D.due_at, _D.id)
            .limit(1)
        ).first()
        if row is None:
            return None
        return Delivery(row[0], decode(row[1], Notice), row[2], from_micros(row[3]), bool(row[4]))

    def put_off(self, id: int, after_s: float) -> None:
        """It did not arrive; it is tried again after that time."""
        due = to_micros(self._clock.now() + timedelta(seconds=after_s))
        self._connection.execute(
            tables.deliveries.update().where(_D.id == id).values(attempts=_D.attempts + 1, due_at=due)
        )

    def delete(self, id: int) -> None:
        self._connection.execute(tables.deliveries.delete().where(_D.id == id))
