"""Tags: key and value on a resource, at most 50 (the services count)."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from clary.store import tables

_T = tables.tags.c


class Tags:
    """The table inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def put(self, uid: str, tags: Mapping[str, str]) -> None:
        """Adds tags; a key that is there gets the new value."""
        self.remove(uid, tags)
        if tags:
            self._connection.execute(
                tables.tags.insert(),
                [{"resource_uid": uid, "key": key, "value": value} for key, value in tags.items()],
            )

    def remove(self, uid: str, keys: Iterable[str]) -> None:
        self._connection.execute(tables.tags.delete().where(_T.resource_uid == uid, _T.key.in_(list(keys))))

    def page(self, uid: str, after: str = "", limit: int = 50) -> list[tuple[str, str]]:
        """(key, value) by key, those behind `after`."""
        rows = self._connection.execute(
            sa.select(_T.key, _T.value)
            .where(_T.resource_uid == uid, _T.key > after)
            .order_by(_T.key)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in rows]
