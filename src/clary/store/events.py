"""What happened to a resource, step by step: the time line that `clary why` prints. The newest 200 are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from clary.domain.clock import Clock
from clary.store import tables
from clary.store.records import decode, encode, from_micros, to_micros

KEPT = 200

_E = tables.events.c


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    step: str
    detail: Mapping[str, Any]


class Events:
    """The table inside one transaction."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    def add(self, uid: str, step: str, **detail: object) -> None:
        self._connection.execute(
            tables.events.insert().values(
                resource_uid=uid, at=to_micros(self._clock.now()), step=step, detail=encode(detail)
            )
        )
        newest_dropped = (
            sa.select(_E.id)
            .where(_E.resource_uid == uid)
            .order_by(_E.id.desc())
            .offset(KEPT)
            .limit(1)
            .scalar_subquery()
        )
        self._connection.execute(
            tables.events.delete().where(_E.resource_uid == uid, _E.id <= newest_dropped)
        )

    def of(self, uid: str) -> list[Event]:
        """Oldest first."""
        rows = self._connection.execute(
            sa.select(_E.at, _E.step, _E.detail).where(_E.resource_uid == uid).order_by(_E.id)
        )
        return [Event(from_micros(row[0]), row[1], decode(row[2], dict[str, Any])) for row in rows]
