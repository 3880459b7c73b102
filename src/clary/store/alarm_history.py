"""What alarms did: a row for each change, kept two weeks, also when the alarm is gone. The newest 1,000 of an alarm.

CloudWatch keeps no less; and an alarm that flaps all day cannot fill the disk.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from clary.domain.clock import Clock
from clary.store import tables
from clary.store.records import encode, from_micros, to_micros

KEPT = 1000
KEPT_FOR = timedelta(days=14)

HistoryType = Literal["ConfigurationUpdate", "StateUpdate", "Action"]

_H = tables.alarm_history.c


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """`data` is JSON in CloudWatch's form."""

    id: int
    alarm: str
    alarm_type: str
    at: datetime
    type: str
    summary: str
    data: str

    @property
    def position(self) -> tuple[int, int]:
        return to_micros(self.at), self.id


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """One page: those behind `after` in time's order, or against it."""

    account: str
    region: str
    alarm: str = ""
    alarm_types: tuple[str, ...] = ("MetricAlarm",)
    type: str = ""
    since: datetime | None = None
    until: datetime | None = None
    descending: bool = True
    limit: int = 100
    after: tuple[int, int] | None = None


class AlarmHistory:
    """The table inside one transaction."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    def add(
        self,
        account: str,
        region: str,
        alarm: str,
        alarm_type: str,
        type: HistoryType,
        summary: str,
        data: object,
    ) -> None:
        now = self._clock.now()
        self._connection.execute(
            tables.alarm_history.insert().values(
                account=account,
                region=region,
                alarm=alarm,
                alarm_type=alarm_type,
                at=to_micros(now),
                type=type,
                summary=summary,
                data=encode(data),
            )
        )
        self._forget(account, region, alarm, now)

    def page(self, query: HistoryQuery) -> list[HistoryItem]:
        where = [_H.account == query.account, _H.region == query.region]
        where += [_H.at > to_micros(self._clock.now() - KEPT_FOR), _H.alarm_type.in_(query.alarm_types)]
        if query.alarm:
            where.append(_H.alarm == query.alarm)
        if query.type:
            where.append(_H.type == query.type)
        if query.since is not None:
            where.append(_H.at >= to_micros(query.since))
        if query.until is not None:
            where.append(_H.at <= to_micros(query.until))
        if query.after is not None:
            here, edge = sa.tuple_(_H.at, _H.id), sa.tuple_(*(sa.literal(each) for each in query.after))
            where.append(here < edge if query.descending else here > edge)
        order = [column.desc() if query.descending else column.asc() for column in (_H.at, _H.id)]
        columns = (_H.id, _H.alarm, _H.alarm_type, _H.at, _H.type, _H.summary, _H.data)
        rows = self._connection.execute(sa.select(*columns).where(*where).order_by(*order).limit(query.limit))
        return [HistoryItem(*row[:3], from_micros(row[3]), *row[4:]) for row in rows]

    def forget_old(self) -> int:
        """Takes away what is too old to be shown, of alarms that are gone as well; how much that was."""
        limit = to_micros(self._clock.now() - KEPT_FOR)
        return self._connection.execute(tables.alarm_history.delete().where(_H.at <= limit)).rowcount

    def _forget(self, account: str, region: str, alarm: str, now: datetime) -> None:
        same = (_H.account == account, _H.region == region, _H.alarm == alarm)
        edge = sa.select(_H.id).where(*same).order_by(_H.id.desc()).offset(KEPT).limit(1).scalar_subquery()
        is_old = _H.at <= to_micros(now - KEPT_FOR)
        self._connection.execute(tables.alarm_history.delete().where(*same, sa.or_(_H.id <= edge, is_old)))
