"""The `resources` table: every kind that has an ARN, with what was asked (spec) and what was observed (state).

Writers hold no locks between transactions: `update` names the version that was read and raises
`StaleResource` when somebody else was faster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from clary.domain.clock import Clock
from clary.store import tables
from clary.store.records import decode, encode, from_micros, to_micros

T = TypeVar("T")

Sort = Literal["name", "created", "status"]

_R = tables.resources.c


class DuplicateName(Exception):
    """Another resource of this kind has the name, in the same account and region."""


class StaleResource(Exception):
    """The resource changed, or went, since it was read: read again and decide anew."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One row. `spec` and `state` are JSON text; `spec_as` and `state_as` read them as a type."""

    uid: str
    account: str
    region: str
    kind: str
    arn: str
    parent: str
    name: str
    status: str
    spec: str
    state: str
    generation: int
    version: int
    created_at: datetime
    modified_at: datetime

    def spec_as(self, type_: type[T]) -> T:
        return decode(self.spec, type_)

    def state_as(self, type_: type[T]) -> T:
        return decode(self.state, type_)


class Summary(NamedTuple):
    """What lists show of a resource."""

    uid: str
    name: str
    arn: str
    status: str
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class PageQuery:
    """One page of a list: `after` is the `position` of the last item of the page before."""

    account: str
    region: str
    kind: str
    sort: Sort = "created"
    descending: bool = True
    limit: int = 10
    after: tuple[str | int, ...] | None = None
    name_contains: str = ""
    status: str = ""
    created_before: datetime | None = None
    created_after: datetime | None = None
    modified_before: datetime | None = None
    modified_after: datetime | None = None

    def position(self, item: Summary) -> tuple[str | int, ...]:
        lower, created = item.name.lower(), to_micros(item.created_at)
        return {"name": (lower,), "created": (created, lower), "status": (item.status, created, lower)}[
            self.sort
        ]


_ORDERS: Mapping[Sort, tuple[sa.Column[Any], ...]] = {
    "name": (_R.lower_name,),
    "created": (_R.created_at, _R.lower_name),
    "status": (_R.status, _R.created_at, _R.lower_name),
}


class Resources:
    """The table inside one transaction. `written` holds the uids of what was inserted, updated or deleted."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self.written: set[str] = set()
        self._connection = connection
        self._clock = clock

    def insert(
        self,
        *,
        uid: str,
        account: str,
        region: str,
        kind: str,
        arn: str,
        name: str,
        status: str,
        spec: object,
        state: object = None,
        parent: str = "",
    ) -> Resource:
        now = self._clock.now()
        resource = Resource(
            uid, account, region, kind, arn, parent, name, status, encode(spec), encode(state), 1, 1, now, now
        )
        values = {column: getattr(resource, column) for column in _COPIED} | {
            "lower_name": name.lower(),
            "created_at": to_micros(now),
            "modified_at": to_micros(now),
        }
        try:
            self._connection.execute(tables.resources.insert().values(values))
        except IntegrityError as error:
            raise DuplicateName(arn) from error
        self.written.add(uid)
        return resource

    def find(self, account: str, region: str, kind: str, name: str) -> Resource | None:
        """By name, whatever its case."""
        return self._one(
            sa.and_(
                _R.account == account, _R.region == region, _R.kind == kind, _R.lower_name == name.lower()
            )
        )

    def get(self, uid: str) -> Resource | None:
        return self._one(_R.uid == uid)

    def all(self, kind: str) -> list[Resource]:
        rows = self._connection.execute(sa.select(tables.resources).where(_R.kind == kind).order_by(_R.uid))
        return [_resource(row._mapping) for row in rows]

    def versions(self, kind: str) -> dict[str, int]:
        """uid → version of all of a kind: what tells cheaply which of them changed."""
        rows = self._connection.execute(sa.select(_R.uid, _R.version).where(_R.kind == kind))
        return {row[0]: row[1] for row in rows}

    def children(self, parent: str, kind: str) -> list[Resource]:
        """Those of a kind that name this parent, newest first."""
        rows = self._connection.execute(
            sa.select(tables.resources)
            .where(_R.parent == parent, _R.kind == kind)
            .order_by(_R.created_at.desc(), _R.uid.desc())
        )
        return [_resource(row._mapping) for row in rows]

    def update(
        self,
        resource: Resource,
        *,
        status: str | None = None,
        spec: object = None,
        state: object = None,
    ) -> Resource:
        """Writes what is given. A new spec is a new generation; state alone does not count as modified.

        Raises `StaleResource`.
        """
        values: dict[str, Any] = {"version": resource.version + 1}
        if status is not None or spec is not None:
            values["modified_at"] = to_micros(self._clock.now())
        if status is not None:
            values["status"] = status
        if spec is not None:
            values |= {"spec": encode(spec), "generation": resource.generation + 1}
        if state is not None:
            values["state"] = encode(state)
        changed = self._connection.execute(
            tables.resources.update()
            .where(_R.uid == resource.uid, _R.version == resource.version)
            .values(values)
        )
        if changed.rowcount != 1:
            raise StaleResource(resource.arn)
        self.written.add(resource.uid)
        written = self.get(resource.uid)
        assert written is not None, "a row that was just written is there"
        return written

    def delete(self, uid: str) -> None:
        """Takes the resource and all that hangs on it away; absent ones are no error."""
        for table in (tables.tags, tables.instances, tables.events):
            self._connection.execute(table.delete().where(table.c.resource_uid == uid))
        self._connection.execute(tables.work.delete().where(tables.work.c.uid == uid))
        self._connection.execute(
            tables.deliveries.delete().where(tables.deliveries.c.subscription_uid == uid)
        )
        self._connection.execute(tables.resources.delete().where(_R.uid == uid))
        self.written.add(uid)

    def page(self, query: PageQuery) -> list[Summary]:
        """At most `limit` items after `after`, in the query's order: one range scan of an index."""
        order = _ORDERS[query.sort]
        where = [_R.account == query.account, _R.region == query.region, _R.kind == query.kind]
        if query.after is not None:
            edge = sa.tuple_(*(sa.literal(value) for value in query.after))
            here = sa.tuple_(*order)
            where.append(here < edge if query.descending else here > edge)
        if query.name_contains:
            where.append(_R.lower_name.contains(query.name_contains.lower(), autoescape=True))
        if query.status:
            where.append(_R.status == query.status)
        for column, moment, is_upper in (
            (_R.created_at, query.created_before, True),
            (_R.created_at, query.created_after, False),
            (_R.modified_at, query.modified_before, True),
            (_R.modified_at, query.modified_after, False),
        ):
            if moment is not None:
                where.append(column < to_micros(moment) if is_upper else column > to_micros(moment))
        columns = (_R.uid, _R.name, _R.arn, _R.status, _R.created_at, _R.modified_at)
        rows = self._connection.execute(
            sa.select(*columns)
            .where(*where)
            .order_by(*(column.desc() if query.descending else column.asc() for column in order))
            .limit(query.limit)
        )
        return [Summary(*row[:4], from_micros(row[4]), from_micros(row[5])) for row in rows]

    def counts(self, account: str | None = None, region: str | None = None) -> dict[tuple[str, str], int]:
        """(kind, status) → how many; everywhere, or in one account and region."""
        select = sa.select(_R.kind, _R.status, sa.func.count()).group_by(_R.kind, _R.status)
        if account is not None:
            select = select.where(_R.account == account)
        if region is not None:
            select = select.where(_R.region == region)
        return {(row[0], row[1]): row[2] for row in self._connection.execute(select)}

    def _one(self, where: sa.ColumnElement[bool]) -> Resource | None:
        row = self._connection.execute(sa.select(tables.resources).where(where)).first()
        return None if row is None else _resource(row._mapping)


_COPIED = (
    "uid",
    "account",
    "region",
    "kind",
    "arn",
    "parent",
    "name",
    "status",
    "spec",
    "state",
    "generation",
    "version",
)


def _resource(row: Mapping[Any, Any]) -> Resource:
    return Resource(
        **{name: row[name] for name in _COPIED},
        created_at=from_micros(row["created_at"]),
        modified_at=from_micros(row["modified_at"]),
    )
