"""What every store keeps: one transaction or nothing, versions, leases, wishes, pages. SQLite now."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.endpoints import Slot
from clary.domain.faults import Fault
from clary.domain.instances import InstanceSpec, LogTarget, instance_id
from clary.store import DuplicateName, LeaseLost, PageQuery, Resource, StaleResource, Store, tables
from clary.store.events import KEPT
from clary.store.resources import Sort
from clary.testing.clock import FakeClock

ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str, clock: FakeClock) -> Iterator[Store]:
    store = Store.open(url, clock, is_durable=False)
    yield store
    store.close()


def insert(store: Store, name: str, kind: str = "thing", status: str = "", uid: str = "") -> Resource:
    with store.write() as tx:
        return tx.resources.insert(
            uid=uid or f"{kind}-{name.lower()}"[:32],
            account=ACCOUNT,
            region=REGION,
            kind=kind,
            arn=f"arn:{kind}/{name}",
            name=name,
            status=status,
            spec={"Name": name},
        )


def test_the_migrations_make_the_tables(url: str, store: Store) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_a_store_is_found_as_it_was_left(url: str, clock: FakeClock) -> None:
    for _ in range(2):
        store = Store.open(url, clock)
        with store.read() as tx:
            found = tx.resources.find(ACCOUNT, REGION, "thing", "A")
        if found is None:
            insert(store, "A")
        store.close()
    assert found is not None
    assert found.spec_as(dict[str, str]) == {"Name": "A"}


def test_names_are_one_whatever_their_case(store: Store) -> None:
    insert(store, "Name")
    with pytest.raises(DuplicateName):
        insert(store, "nAME", uid="another")
    insert(store, "Name", kind="other")
    with store.read() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "thing", "NAME")
        assert found is not None
        assert found.name == "Name"
        assert tx.resources.find(ACCOUNT, "eu-west-1", "thing", "Name") is None


def test_children_are_found_newest_first(store: Store, clock: FakeClock) -> None:
    def child(name: str, parent: str, kind: str = "part") -> None:
        clock.advance(1)
        with store.write() as tx:
            tx.resources.insert(
                uid=name, account=ACCOUNT, region=REGION, kind=kind, arn=f"arn:{name}", name=name, status="",
                spec={}, parent=parent,
            )  # fmt: skip

    for name in ("one", "two"):
        child(name, "arn:whole")
    child("theirs", "arn:other")
    child("another", "arn:whole", "piece")
    with store.read() as tx:
        assert [found.name for found in tx.resources.children("arn:whole", "part")] == ["two", "one"]
        assert tx.resources.children("arn:absent", "part") == []


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    resource = insert(store, "A")
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.resources.update(resource, status="Changed")
        tx.work.wish("thing", resource.uid)
        _ = 1 / 0
    with store.read() as tx:
        found = tx.resources.get(resource.uid)
        assert found == resource
        assert tx.work.next_due() is None


def test_a_reader_cannot_write(store: Store) -> None:
    resource = insert(store, "A")
    with pytest.raises(sa.exc.OperationalError), store.read() as tx:
        tx.resources.delete(resource.uid)


def test_the_slower_writer_is_told(store: Store, clock: FakeClock) -> None:
    resource = insert(store, "A")
    clock.advance(1)
    with store.write() as tx:
        written = tx.resources.update(resource, state={"seen": 1})
    assert (written.generation, written.version, written.modified_at) == (1, 2, resource.modified_at)
    with pytest.raises(StaleResource), store.write() as tx:
        tx.resources.update(resource, status="Lost")
    with store.write() as tx:
        written = tx.resources.update(written, spec={"Name": "B"})
    assert (written.generation, written.version) == (2, 3)
    assert written.modified_at == clock.now()


def test_what_hangs_on_a_resource_goes_with_it(store: Store) -> None:
    resource = insert(store, "A")
    with store.write() as tx:
        tx.tags.put(resource.uid, {"a": "1"})
        tx.events.add(resource.uid, "made")
        tx.work.wish("thing", resource.uid)
    with store.write() as tx:
        tx.resources.delete(resource.uid)
    with store.read() as tx:
        assert tx.tags.page(resource.uid) == []
        assert tx.events.of(resource.uid) == []
        assert tx.work.next_due() is None


def test_tags_are_replaced_by_key_and_paged(store: Store) -> None:
    uid = insert(store, "A").uid
    with store.write() as tx:
        tx.tags.put(uid, {f"k{i}": "old" for i in range(5)})
        tx.tags.put(uid, {"k1": "new"})
        tx.tags.remove(uid, ["k0", "absent"])
    with store.read() as tx:
        assert tx.tags.page(uid, limit=2) == [("k1", "new"), ("k2", "old")]
        assert tx.tags.page(uid, "k2") == [("k3", "old"), ("k4", "old")]


def test_a_wish_is_told_after_its_commit_and_only_then(store: Store) -> None:
    told: list[bool] = []

    def tell() -> None:
        with store.read() as tx:
            told.append(tx.work.next_due() is not None)

    store.subscribe(tell)
    with store.write() as tx:
        tx.work.wish("thing", "a")
    with store.write() as tx:
        tx.events.add("a", "no wish")
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.work.wish("thing", "b")
        _ = 1 / 0
    assert told == [True]


def test_a_key_is_taken_once_until_its_lease_ends(store: Store, clock: FakeClock) -> None:
    with store.write() as tx:
        tx.work.wish("thing", "a")
        (first,) = tx.work.take(8, lease_s=10)
        assert tx.work.take(8, lease_s=10) == []
        tx.work.hold(first, lease_s=10)
    clock.advance(10)
    with store.write() as tx:
        (second,) = tx.work.take(8, lease_s=10)
    with pytest.raises(LeaseLost), store.write() as tx:
        tx.work.hold(first, lease_s=10)
    with store.write() as tx:
        tx.work.finish(first, None)  # too late: it changes nothing
        tx.work.hold(second, lease_s=10)
        tx.work.finish(second, None)
        assert tx.work.next_due() is None


def test_a_wish_during_the_work_is_not_lost(store: Store, clock: FakeClock) -> None:
    with store.write() as tx:
        tx.work.wish("thing", "a")
        (lease,) = tx.work.take(1, lease_s=10)
    with store.write() as tx:
        tx.work.wish("thing", "a")
    with store.write() as tx:
        tx.work.finish(lease, None)
        (again,) = tx.work.take(1, lease_s=10)
        assert again.attempts == 0
        tx.work.finish(again, 5.0, has_failed=True)
        assert tx.work.take(1, lease_s=10) == []
        assert tx.work.next_due() == clock.now() + timedelta(seconds=5)
    clock.advance(5)
    with store.write() as tx:
        (third,) = tx.work.take(1, lease_s=10)
        assert third.attempts == 1


def test_many_threads_take_each_key_once(store: Store) -> None:
    with store.write() as tx:
        for number in range(40):
            tx.work.wish("thing", str(number))
    taken: list[str] = []

    def take() -> None:
        while True:
            with store.write() as tx:
                leases = tx.work.take(3, lease_s=60)
            if not leases:
                return
            taken.extend(lease.uid for lease in leases)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(number) for number in range(40)]


def test_instances_are_kept_until_deleted(store: Store, clock: FakeClock) -> None:
    uid = insert(store, "A").uid
    slot = Slot("fleet", "v", 0, 1)
    spec = InstanceSpec(instance_id(uid, "fleet", "v", 0, 1), "serve", "image", LogTarget("1", "r", "g", "s"))
    with store.write() as tx:
        tx.instances.insert(uid, slot, 2, clock.now(), spec)
        tx.instances.set_handle(spec.instance_id, "handle")
        tx.instances.set_phase(spec.instance_id, "ready")
        (row,) = tx.instances.of(uid)
        assert (row.slot, row.is_wanted, row.is_started, row.phase, row.failures) == (
            slot,
            True,
            True,
            "ready",
            2,
        )
        assert tx.instances.spec(spec.instance_id) == spec
        tx.instances.retire([spec.instance_id])
        (row,) = tx.instances.of(uid)
        assert (row.is_wanted, row.gone_at) == (False, clock.now())
        assert tx.instances.phases() == {spec.instance_id: (uid, "ready", False)}
        tx.instances.delete([spec.instance_id])
        assert tx.instances.of(uid) == []


def test_the_time_line_keeps_its_newest_events(store: Store) -> None:
    with store.write() as tx:
        tx.events.add("other", "stays")
        for number in range(KEPT + 7):
            tx.events.add("a", "step", number=number)
    with store.read() as tx:
        numbers = [event.detail["number"] for event in tx.events.of("a")]
        assert numbers == list(range(7, KEPT + 7))
        assert len(tx.events.of("other")) == 1


def test_a_full_disk_refuses_the_write_and_loses_nothing(url: str, clock: FakeClock) -> None:
    store = Store.open(url, clock)
    kept = insert(store, "kept")

    @sa.event.listens_for(store._writer, "begin")
    def fill(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    with pytest.raises(Fault) as refused, store.write() as tx:
        tx.work.wish("thing", kept.uid)
        for number in range(2000):
            tx.events.add(kept.uid, "filling", text="x" * 400, number=number)
    assert (refused.value.code, refused.value.status) == ("ServiceUnavailable", 503)
    assert "disk" in refused.value.message
    with store.read() as tx:
        assert tx.resources.get(kept.uid) == kept
        assert tx.events.of(kept.uid) == []
        assert tx.work.next_due() is None
    store.close()


def test_clear_empties_everything(store: Store) -> None:
    insert(store, "A")
    store.clear()
    with store.read() as tx:
        assert tx.resources.counts() == {}


def test_counts_are_by_kind_and_status(store: Store) -> None:
    insert(store, "A", status="On")
    insert(store, "B", status="On")
    insert(store, "C", kind="other")
    with store.read() as tx:
        assert tx.resources.counts(ACCOUNT) == {("thing", "On"): 2, ("other", ""): 1}
        assert tx.resources.counts("000000000000") == {}


NAMES = st.lists(
    st.text("abAB-1", min_size=1, max_size=4), min_size=1, max_size=12, unique_by=lambda name: name.lower()
)


@settings(max_examples=25, deadline=None)
@given(
    names=NAMES,
    statuses=st.lists(st.sampled_from(["On", "Off"]), min_size=12, max_size=12),
    sort=st.sampled_from(["name", "created", "status"]),
    descending=st.booleans(),
    limit=st.integers(1, 5),
    contains=st.sampled_from(["", "a", "B-"]),
)
def test_pages_together_are_the_sorted_list(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    statuses: list[str],
    sort: Sort,
    descending: bool,
    limit: int,
    contains: str,
) -> None:
    clock = FakeClock()
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('pages') / 'store.db'}", clock, is_durable=False)
    made = {}
    for number, (name, status) in enumerate(zip(names, statuses, strict=False)):
        made[name] = (status, number // 3)  # several are made in the same instant
        insert(store, name, status=status, uid=str(number))
        if number % 3 == 2:
            clock.advance(1)
    keys = {
        "name": lambda name: name.lower(),
        "created": lambda name: (made[name][1], name.lower()),
        "status": lambda name: (*made[name], name.lower()),
    }
    wanted = [name for name in names if contains.lower() in name.lower()]
    wanted.sort(key=keys[sort], reverse=descending)
    query = PageQuery(
        ACCOUNT, REGION, "thing", sort=sort, descending=descending, limit=limit, name_contains=contains
    )
    found: list[str] = []
    after = None
    while True:
        with store.read() as tx:
            page = tx.resources.page(
                PageQuery(
                    ACCOUNT,
                    REGION,
                    "thing",
                    sort=sort,
                    descending=descending,
                    limit=limit,
                    name_contains=contains,
                    after=after,
                )
            )
        found += [item.name for item in page]
        if len(page) < limit:
            break
        after = query.position(page[-1])
    store.close()
    assert found == wanted


@pytest.mark.parametrize("sort", ["name", "created", "status"])
@pytest.mark.parametrize("descending", [True, False])
def test_every_page_is_one_range_scan(url: str, store: Store, sort: Sort, descending: bool) -> None:
    """However deep: the plan searches an index and sorts nothing."""
    statements: list[tuple[str, object]] = []

    @sa.event.listens_for(store._reader, "before_cursor_execute")
    def note(_c: object, _u: object, statement: str, parameters: object, *_rest: object) -> None:
        statements.append((statement, parameters))

    position: dict[Sort, tuple[str | int, ...]] = {
        "name": ("x",),
        "created": (1, "x"),
        "status": ("s", 1, "x"),
    }
    query = PageQuery(ACCOUNT, REGION, "thing", sort=sort, descending=descending, after=position[sort])
    with store.read() as tx:
        tx.resources.page(query)
    statement, parameters = statements[-1]
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        plan = [
            str(row[3])
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
        ]
    engine.dispose()
    assert len(plan) == 1, plan
    assert plan[0].startswith("SEARCH resources USING INDEX"), plan
    assert plan[0].count("?") > 3, plan  # the position is part of the search
