"""The instances that control wants, or wanted and has not seen gone: each is stored before it is started."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from clary.domain.clock import Clock
from clary.domain.endpoints import Slot
from clary.domain.instances import InstanceId, InstanceSpec, Phase
from clary.domain.places import InstanceRow
from clary.store import tables
from clary.store.records import decode, encode, from_micros, to_micros

_I = tables.instances.c


class Instances:
    """The table inside one transaction."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    def insert(self, uid: str, slot: Slot, failures: int, start_at: datetime, spec: InstanceSpec) -> None:
        self._connection.execute(
            tables.instances.insert().values(
                id=spec.instance_id,
                resource_uid=uid,
                fleet=slot.fleet,
                variant=slot.variant,
                ordinal=slot.ordinal,
                incarnation=slot.incarnation,
                desired="run",
                handle="",
                phase="missing",
                failures=failures,
                start_at=to_micros(start_at),
                gone_at=0,
                spec=encode(spec),
            )
        )

    def of(self, uid: str) -> list[InstanceRow]:
        """Those of one resource, oldest incarnation first."""
        rows = self._connection.execute(
            sa.select(tables.instances)
            .where(_I.resource_uid == uid)
            .order_by(_I.fleet, _I.variant, _I.ordinal, _I.incarnation)
        )
        return [_row(row._mapping) for row in rows]

    def phases(self) -> dict[InstanceId, tuple[str, Phase, bool]]:
        """Every instance: its resource's uid, the phase last seen, whether it should run."""
        rows = self._connection.execute(sa.select(_I.id, _I.resource_uid, _I.phase, _I.desired))
        return {InstanceId(row[0]): (row[1], row[2], row[3] == "run") for row in rows}

    def spec(self, id_: InstanceId) -> InstanceSpec | None:
        text = self._connection.execute(sa.select(_I.spec).where(_I.id == id_)).scalar()
        return None if text is None else decode(text, InstanceSpec)

    def set_handle(self, id_: InstanceId, handle: str) -> None:
        self._set([id_], handle=handle)

    def set_phase(self, id_: InstanceId, phase: Phase) -> None:
        self._set([id_], phase=phase)

    def retire(self, ids: Iterable[InstanceId]) -> None:
        """Marks them as no longer wanted; they stay until they are seen gone."""
        self._set(ids, desired="gone", gone_at=to_micros(self._clock.now()))

    def delete(self, ids: Iterable[InstanceId]) -> None:
        self._connection.execute(tables.instances.delete().where(_I.id.in_(list(ids))))

    def _set(self, ids: Iterable[InstanceId], **values: Any) -> None:
        self._connection.execute(tables.instances.update().where(_I.id.in_(list(ids))).values(**values))


def _row(row: Mapping[Any, Any]) -> InstanceRow:
    return InstanceRow(
        id=InstanceId(row["id"]),
        slot=Slot(row["fleet"], row["variant"], row["ordinal"], row["incarnation"]),
        is_wanted=row["desired"] == "run",
        is_started=bool(row["handle"]),
        phase=row["phase"],
        failures=row["failures"],
        start_at=from_micros(row["start_at"]),
        gone_at=from_micros(row["gone_at"]) if row["gone_at"] else None,
    )
