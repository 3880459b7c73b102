"""On a full disk: what is new is refused, what leads to room again goes through, and nothing is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from clary.domain.faults import Fault
from clary.links import free_room
from clary.store import Store
from clary.store.database import Transaction
from clary.store.reserve import LOG_BYTES, Reserve
from clary.testing.clock import FakeClock
from failing_disk import FailingDisk

NEVER = sys.maxsize
PAGES = 20
MORE_THAN_THE_LOG_HOLDS = 2 * LOG_BYTES // (PAGES * 4096)
"""Transactions of that many pages."""


def open_store(root: Path, *, has_reserve: bool = True) -> Store:
    url = f"sqlite:///{root / 'store.db'}"
    return Store.open(url, FakeClock(), is_durable=False, has_reserve=has_reserve)


def insert(tx: Transaction, name: str) -> None:
    tx.resources.insert(
        uid=name,
        account="1",
        region="r",
        kind="k",
        arn=name,
        name=name,
        status="s",
        spec={"text": "x" * 3000},
    )


def names(store: Store) -> set[str]:
    with store.read() as tx:
        return {resource.name for resource in tx.resources.all("k")}


def test_a_full_disk_refuses_what_is_new_and_lets_go_what_is_old(root: Path, disk: FailingDisk) -> None:
    store = open_store(root)
    for number in range(40):
        with store.write() as tx:
            insert(tx, f"old-{number}")
    with disk.full_at(1, lasting=True, in_place=True):
        with pytest.raises(Fault, match="free some space") as refused, store.write() as tx:
            insert(tx, "new")
        assert refused.value.status == 503
        for number in range(MORE_THAN_THE_LOG_HOLDS):
            with store.write(on_full_disk=True) as tx:
                resource = tx.resources.get("old-1")
                assert resource is not None
                tx.resources.update(resource, status=f"{number}", state={"text": "x" * PAGES * 4096})
        for number in range(1, 40):
            with store.write(on_full_disk=True) as tx:
                tx.resources.delete(f"old-{number}")
    assert names(store) == {"old-0"}
    with store.write() as tx:
        insert(tx, "new")
    store.close()
    again = open_store(root)
    assert names(again) == {"old-0", "new"}
    again.close()


def test_without_what_is_held_back_a_deletion_is_refused(root: Path, disk: FailingDisk) -> None:
    store = open_store(root, has_reserve=False)
    with store.write() as tx:
        insert(tx, "old")
    with (
        disk.full_at(1, lasting=True, in_place=True),
        pytest.raises(Fault, match="disk"),
        store.write(on_full_disk=True) as tx,
    ):
        tx.resources.delete("old")
    assert names(store) == {"old"}
    store.close()


def test_a_store_opened_on_a_disk_nearly_full_holds_room_back_when_there_is_some(
    root: Path, disk: FailingDisk
) -> None:
    open_store(root).close()
    with disk.full_at(NEVER, lasting=True, in_place=True):
        store = open_store(root)
        with store.write(on_full_disk=True) as tx:
            insert(tx, "first")
        assert (root / "store.db-wal").stat().st_blocks * 512 < LOG_BYTES
    for number in range(60):
        with store.write() as tx:
            insert(tx, f"{number}")
    assert (root / "store.db-wal").stat().st_blocks * 512 >= LOG_BYTES
    store.close()


@pytest.mark.parametrize("lasting", [True, False], ids=["full", "once"])
def test_a_disk_that_is_full_while_room_is_taken_refuses_one_write_at_most(
    root: Path, disk: FailingDisk, lasting: bool
) -> None:
    open_store(root, has_reserve=False).close()
    empty = (root / "store.db").read_bytes()
    for at in (1, 2, 3, 4, 5, 8, 16, 100, 250, 260, 300):
        place = root / f"{at}"
        place.mkdir()
        (place / "store.db").write_bytes(empty)
        store = open_store(place)
        expected = {"after"}
        with disk.full_at(at, lasting=lasting) as attempt:
            try:
                with store.write() as tx:
                    insert(tx, "first")
                expected.add("first")
            except Fault as fault:
                assert fault.status == 503
                assert attempt.was_hit
        with store.write() as tx:
            insert(tx, "after")
        assert names(store) == expected, attempt.failed[:1]
        store.close()
        with sqlite3.connect(place / "store.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def statvfs_of(blocks: int, free: int, available: int) -> Callable[[object], SimpleNamespace]:
    return lambda path: SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bfree=free, f_bavail=available)


def test_a_file_system_that_does_not_say_its_size_is_not_full(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs_of(0, 0, 0))
    assert not Reserve(root / "store.db").is_all_there_is()
    monkeypatch.setattr(os, "statvfs", statvfs_of(100_000, 0, 0))
    assert Reserve(root / "store.db").is_all_there_is()


@pytest.mark.parametrize(
    ("uid", "user_map", "is_all"),
    [(0, "0 0 4294967295", False), (0, "0 1000 1", True), (1000, "0 0 4294967295", True)],
    ids=["root", "root-of-a-namespace", "user"],
)
def test_what_is_kept_for_root_is_room_for_root_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, uid: int, user_map: str, is_all: bool
) -> None:
    (root / "uid_map").write_text(user_map)
    monkeypatch.setattr(free_room, "_USER_MAP", root / "uid_map")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "statvfs", statvfs_of(100_000, 5000, 0))
    assert Reserve(root / "store.db").is_all_there_is() is is_all


def test_what_ext4_keeps_from_everybody_is_no_room_for_root_either(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full one its root is told of 4,096 blocks that nobody gets."""
    (root / "uid_map").write_text("0 0 4294967295")
    monkeypatch.setattr(free_room, "_USER_MAP", root / "uid_map")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "statvfs", statvfs_of(100_000, 4096, 0))
    assert Reserve(root / "store.db").is_all_there_is()
    monkeypatch.setattr(os, "statvfs", statvfs_of(100_000, 4096, 4096))
    assert not Reserve(root / "store.db").is_all_there_is(), "where all may have it, root may, too"


KILLED = """
import os, signal, sys
from clary.domain.clock import SystemClock
from clary.store import Store
store = Store.open(sys.argv[1], SystemClock(), has_reserve=True)
for number in range(20):
    with store.write() as tx:
        tx.resources.insert(
            uid=f"{number}", account="1", region="r", kind="k", arn=f"{number}", name=f"{number}", status="s", spec={}
        )
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_log_with_room_to_spare_is_read_back_after_a_kill(root: Path) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, f"sqlite:///{root / 'store.db'}"], check=False)
    assert child.returncode == -signal.SIGKILL
    assert os.stat(root / "store.db-wal").st_size >= LOG_BYTES  # noqa: PTH116
    store = open_store(root)
    assert names(store) == {f"{number}" for number in range(20)}
    store.close()
