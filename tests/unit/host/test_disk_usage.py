"""What counts as written by an instance, and that all of it can be removed, whatever the instance has made of it."""

import errno
import inspect
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clary.host import disk_usage
from clary.host.disk_removal import clear, remove
from clary.host.disk_usage import Written
from clary.host.records import empty

MIB = 1 << 20
PLENTY = Written(1 << 40, 1 << 30)
NOBODYS_UID = 231_789
DEEPER_THAN_PATHS = 4096 // 40 + 50


def fill(path: Path, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size_bytes)


def written(directory: Path, processes: tuple[int, ...] = (), enough: Written = PLENTY) -> Written:
    return disk_usage.written(directory, processes, enough)


def make_deep(place: Path, depth: int) -> None:
    """A tree whose paths are longer than any path may be, with a file at its end."""
    script = (
        "import os, sys\n"
        f"for _ in range({depth}):\n"
        "    os.mkdir('d' * 40)\n"
        "    os.chdir('d' * 40)\n"
        f"open('end', 'wb').write(b'x' * {MIB})\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=place, check=True)


def test_files_count_by_the_room_they_take(tmp_path: Path) -> None:
    fill(tmp_path / "tmp/a", MIB)
    fill(tmp_path / "ml/b/c", MIB)
    with (tmp_path / "tmp/hole").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "tmp/again").hardlink_to(tmp_path / "tmp/a")
    found = written(tmp_path)
    assert 2 * MIB <= found.size_bytes < 3 * MIB
    assert found.files == 6  # tmp, ml, b, a, c, hole


def test_what_the_host_put_there_and_links_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path / "shared/model", MIB)
    own = tmp_path / "i"
    fill(own / "opt/ml/models/m/model/weights", MIB)
    fill(own / "model-parts/p", MIB)
    (own / "opt/ml/model").symlink_to(tmp_path / "shared")
    assert disk_usage.written(own, (), PLENTY, disk_usage.HOSTS_OWN).size_bytes < MIB
    assert written(own).size_bytes >= 2 * MIB  # of an instance of one model, the places are its own


HOLDS_A_FILE_WITHOUT_A_NAME = """
import os, sys
with open("gone", "wb", buffering=0) as file:
    file.write(b"x" * (1 << 20))
    os.unlink("gone")
    twice = os.dup(file.fileno())
    print("written", flush=True)
    sys.stdin.readline()
"""


def test_a_file_without_a_name_counts_as_long_as_somebody_holds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_A_FILE_WITHOUT_A_NAME]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        assert written(tmp_path).size_bytes == 0
        assert MIB <= written(tmp_path, (child.pid,)).size_bytes < 2 * MIB
        child.communicate(b"\n")
    assert written(tmp_path, (child.pid,)) == Written()


def test_counting_ends_where_it_is_too_much(tmp_path: Path) -> None:
    for number in range(50):
        fill(tmp_path / f"{number}", 1)
    assert written(tmp_path, enough=Written(1 << 40, 10)).files == 11


def test_a_look_that_is_cut_off_is_tried_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a/b", MIB)
    fill(tmp_path / "c", MIB)
    failures = [errno.ESTALE, errno.EMFILE]
    look = os.scandir

    def scandir(here: int) -> Any:
        if failures and Path(f"/proc/self/fd/{here}").readlink().name == "a":
            raise OSError(failures.pop(), "cut off")
        return look(here)

    monkeypatch.setattr(os, "scandir", scandir)
    found = written(tmp_path)
    assert (found.is_whole, found.files) == (True, 3)
    failures = [errno.ESTALE] * disk_usage.TRIES
    found = written(tmp_path)
    assert not found.is_whole
    assert MIB <= found.size_bytes < 2 * MIB


def test_without_descriptors_nothing_is_seen_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a/b", MIB)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        found = written(tmp_path)
    assert not found.is_whole


def test_blocks_beyond_the_end_of_a_file_are_spared_where_asked(tmp_path: Path) -> None:
    fill(tmp_path / "a", MIB)
    found = (tmp_path / "a").stat()
    held = SimpleNamespace(
        st_mode=found.st_mode, st_size=found.st_size, st_blksize=found.st_blksize, st_blocks=4 * MIB // 512
    )
    assert disk_usage._size(cast(os.stat_result, held)) == 4 * MIB
    assert disk_usage._size_without_ahead(cast(os.stat_result, held)) == MIB
    assert disk_usage.written(tmp_path, (), PLENTY, spare_ahead=True).size_bytes >= MIB


def test_H08_of_an_instance_that_filled_the_disk_only_the_hosts_own_files_stay(tmp_path: Path) -> None:
    hosts = {
        name: tmp_path / name for name in ("spec.json", "exit.json", ".state.json", "container.json", "lock")
    }
    for path in hosts.values():
        fill(path, 10)
    for name in ("big", ".cache/x/y", "opt/other/z", "opt/ml/data", "ml/a", "tmp/b", "state.json/c"):
        fill(tmp_path / name, MIB)
    empty(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {*hosts, "opt", "opt/ml", "ml", "tmp"}


def test_a_directory_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert written(tmp_path / "never") == Written()
    clear(tmp_path / "never")
    remove(tmp_path / "never")


def test_H08_a_tree_deeper_than_paths_and_calls_may_be_is_counted_and_removed(tmp_path: Path) -> None:
    place = tmp_path / "i"
    place.mkdir()
    make_deep(place, DEEPER_THAN_PATHS)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + DEEPER_THAN_PATHS // 2)
    try:
        found = written(place)
        remove(place)
    finally:
        sys.setrecursionlimit(limit)
    assert found.files == DEEPER_THAN_PATHS + 1
    assert found.size_bytes >= MIB
    assert not place.exists()


def test_H08_nothing_hides_in_a_directory_that_is_closed() -> None:
    with tempfile.TemporaryDirectory(prefix="clary-") as directory:
        place = Path(directory)
        fill(place / "tmp/closed/inner/file", MIB)
        if (child := os.fork()) == 0:
            os._exit(0 if is_found_and_removed(place) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(place.iterdir()) == []


def is_found_and_removed(place: Path) -> bool:
    """As an ordinary user: for root no directory is closed."""
    try:
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODYS_UID, NOBODYS_UID)
            os.setresuid(NOBODYS_UID, NOBODYS_UID, NOBODYS_UID)
        for folder in ("tmp/closed/inner", "tmp/closed", "tmp"):
            (place / folder).chmod(0)
        found = written(place)
        (place / "tmp").chmod(0o500)
        clear(place)
    except OSError:
        traceback.print_exc()
        return False
    return found.size_bytes >= MIB


def test_clearing_keeps_the_directory_and_whose_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "tmp/a/b/c", 1)
    before = (tmp_path / "tmp").stat()
    clear(tmp_path / "tmp")
    after = (tmp_path / "tmp").stat()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (before.st_ino, before.st_uid, before.st_mode) == (after.st_ino, after.st_uid, after.st_mode)


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "shared/model", 1)
    (tmp_path / "i").mkdir()
    (tmp_path / "i/model").symlink_to(tmp_path / "shared")
    remove(tmp_path / "i")
    assert (tmp_path / "shared/model").exists()
