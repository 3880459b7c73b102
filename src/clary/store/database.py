"""The store: transactions over the tables, and the schema brought up to date when it opens.

SQLite has one writing connection behind a lock and pooled readers that see the last commit; a transaction that
returned is on the disk (WAL, synchronous=FULL). Nothing outside the database happens inside a transaction.
Whoever wants to know of new work calls `subscribe`: it is told after the commit that holds the wish. Who waits for
a resource to change watches `changes`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.store import migrations, tables
from clary.store.alarm_history import AlarmHistory
from clary.store.changes import Changes
from clary.store.deliveries import Deliveries
from clary.store.events import Events
from clary.store.instances import Instances
from clary.store.reserve import Reserve
from clary.store.resources import Resources
from clary.store.tags import Tags
from clary.store.work import Work

HEAD = "0002"
"""The newest migration. Opening a store that has it already does not even load Alembic."""

_READERS = 8
_HOLD_EVERY = 50
"""Transactions between two looks at what is held back: fewer than take its free pages."""

_SQLITE_IOERR, _SQLITE_FULL = 10, 13


class StoreTooNew(Exception):
    """What is stored is of a later version, which alone can read it."""


class Transaction:
    """The tables, inside one transaction. It is of no use once its `with` block has ended."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self.resources = Resources(connection, clock)
        self.tags = Tags(connection)
        self.work = Work(connection, clock)
        self.instances = Instances(connection, clock)
        self.events = Events(connection, clock)
        self.alarm_history = AlarmHistory(connection, clock)
        self.deliveries = Deliveries(connection, clock)


class Store:
    """Open with `Store.open`. Safe to use from any thread."""

    def __init__(
        self, writer: sa.Engine, reader: sa.Engine, clock: Clock, reserve: Reserve | None = None
    ) -> None:
        self._writer = writer
        self._reserve = reserve
        self._until_hold = 0
        self._reader = reader
        self.changes = Changes()
        self._clock = clock
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[], None]] = []

    @classmethod
    def open(cls, url: str, clock: Clock, *, is_durable: bool = True, has_reserve: bool = False) -> "Store":
        """Opens the store and migrates it. `is_durable=False` skips the disk's confirmation: for tests.

        `has_reserve`: room is held back for what `write` lets go through on a full disk.
        """
        writer = sa.create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=False)
        reader = sa.create_engine(url, pool_size=_READERS, max_overflow=-1)  # threads are bounded elsewhere
        if writer.dialect.name == "sqlite":
            _configure_sqlite(writer, "BEGIN IMMEDIATE", is_writer=True, is_durable=is_durable)
            _configure_sqlite(reader, "BEGIN", is_writer=False, is_durable=is_durable)
        file = writer.url.database if writer.dialect.name == "sqlite" and has_reserve else None
        store = cls(writer, reader, clock, Reserve(Path(file)) if file else None)
        with _translated(), writer.begin() as connection:
            _migrate(connection)
        return store

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator[Transaction]:
        """One transaction, committed when the block ends and undone when it raises. Never nested.

        `on_full_disk`: it may take what is held back for a full disk, which refuses everything else. For deletions,
        and for the steps of reconcilers that carry them out.
        """
        with self._lock, _translated():
            self._admit(on_full_disk)
            with self._writer.begin() as connection:
                transaction = Transaction(connection, self._clock)
                yield transaction
        if transaction.resources.written:
            self.changes.note(transaction.resources.written)
        if transaction.work.has_wished:
            for tell in self._subscribers:
                tell()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view; writing in it is an error."""
        with _translated(), self._reader.begin() as connection:
            yield Transaction(connection, self._clock)

    def subscribe(self, tell: Callable[[], None]) -> None:
        """Has `tell` called, on the writer's thread, after each commit with a wish in it. It must not block."""
        self._subscribers.append(tell)

    def clear(self) -> None:
        """Empties every table."""
        with self._lock, _translated(), self._writer.begin() as connection:
            for table in tables.metadata.tables.values():
                connection.execute(table.delete())
        self.changes.note(None)

    def _admit(self, on_full_disk: bool) -> None:
        """Refuses what may not take the last room, and sees now and then that there is some."""
        if self._reserve is None:
            return
        if not on_full_disk and self._reserve.is_all_there_is():
            raise _no_room()
        if self._until_hold == 0:
            self._reserve.hold(self._writer)
        self._until_hold = (self._until_hold + 1) % _HOLD_EVERY

    @property
    def is_shared(self) -> bool:
        """Whether other processes may hold leases in this store."""
        return self._writer.dialect.name != "sqlite"

    def close(self) -> None:
        self._writer.dispose()
        self._reader.dispose()


def _configure_sqlite(engine: sa.Engine, begin: str, *, is_writer: bool, is_durable: bool) -> None:
    """Takes transactions out of the sqlite3 module's hands: it would begin them late and deferred."""

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'OFF'}")
        if not is_writer:
            connection.execute("PRAGMA query_only = ON")

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)


def _migrate(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table("alembic_version"):
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise StoreTooNew(
                f"the store was written by a newer version of Clary: its revision is {found}, and this version knows "
                f"those up to {HEAD}. Run the newer version; nothing was changed"
            )
    # Alembic is loaded only where there is something to do: it costs 20 MB and a quarter of a second.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _translated() -> Iterator[None]:
    """A full disk is the caller's to know; everything else the database says is a bug or a broken machine."""
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code not in (_SQLITE_FULL, _SQLITE_IOERR):
            raise
        raise _no_room() from error


def _no_room() -> Fault:
    return Fault(
        "ServiceUnavailable",
        "The server could not write this: the disk that holds its data is full or failing. "
        "Nothing was changed; free some space and try again.",
        503,
    )
