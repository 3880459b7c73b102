"""What counts as written by an instance, and that all of it can be removed, whatever the instance has made of it."""

import inspect
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from clary.host import disk_usage
from clary.host.disk_removal import clear, remove
from clary.host.disk_usage import Written

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
