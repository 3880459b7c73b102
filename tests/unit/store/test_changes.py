"""Who watches a resource is told after the commit that writes it, and misses none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.domain.resources import ENDPOINT
from clary.store import Resource, Store
from clary.store.changes import Changes
from clary.testing.clock import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}", FakeClock(), is_durable=False)
    yield store
    store.close()


def insert(store: Store, uid: str) -> Resource:
    with store.write() as tx:
        return tx.resources.insert(
            uid=uid,
            account="1",
            region="r",
            kind=ENDPOINT.name,
            arn=uid,
            name=uid,
            status="Creating",
            spec={},
        )


def watch(store: Store, uid: str, told: list[str]) -> None:
    store.changes.watch(uid, store.changes.mark(), lambda: told.append(uid))


def test_an_update_and_a_deletion_are_told_once_each(store: Store) -> None:
    told: list[str] = []
    resource = insert(store, "a")
    watch(store, "a", told)
    insert(store, "b")
    assert told == []
    with store.write() as tx:
        resource = tx.resources.update(resource, status="InService")
        assert told == []  # not before the commit
    assert told == ["a"]
    with store.write() as tx:
        tx.resources.update(resource, status="Deleting")
    assert told == ["a"]
    watch(store, "a", told)
    with store.write() as tx:
        tx.resources.delete("a")
    assert told == ["a", "a"]


def test_what_was_undone_is_not_told(store: Store) -> None:
    told: list[str] = []
    resource = insert(store, "a")
    watch(store, "a", told)
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.resources.update(resource, status="InService")
        raise ZeroDivisionError
    assert told == []


def test_emptying_the_store_is_told_to_all(store: Store) -> None:
    told: list[str] = []
    for uid in ("a", "b"):
        insert(store, uid)
    for uid in ("a", "b"):
        watch(store, uid, told)
    store.clear()
    assert sorted(told) == ["a", "b"]


def test_a_change_between_the_look_and_the_wait_is_told_at_once() -> None:
    changes, told = Changes(), list[str]()
    mark = changes.mark()
    changes.note({"a"})
    changes.watch("a", mark, lambda: told.append("late"))
    assert told == ["late"]


def test_who_no_longer_wants_to_know_is_not_told() -> None:
    changes, told = Changes(), list[str]()
    forget = changes.watch("a", changes.mark(), lambda: told.append("one"))
    changes.watch("a", changes.mark(), lambda: told.append("other"))
    forget()
    forget()
    changes.note({"a"})
    assert told == ["other"]
