"""A writer killed at any step loses nothing it acknowledged and leaves nothing behind."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clary.blobs.base import NoSuchKey, StorageFailed
from clary.blobs.filesystem import FilesystemBlobs
from clary.testing.clock import FakeClock

WRITER = Path(__file__).with_name("crashing_writer.py")
BUCKET = "bucket"
LIVES: dict[str, list[bytes | None]] = {  # what each key holds, in turn
    "kept": [b"kept"],
    "replaced": [b"replaced", b"again"],
    "deleted": [b"deleted", None],
}


@pytest.mark.slow
def test_a_kill_at_any_step_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    for at in range(1, _steps(tmp_path) + 1):
        problems = _problems(tmp_path / str(at), at)
        assert problems == [], f"after a kill at step {at}"


@pytest.mark.slow
def test_these_kills_find_a_store_that_is_careless(tmp_path: Path) -> None:
    steps = _steps(tmp_path, "careless")
    assert any(_problems(tmp_path / str(at), at, "careless") for at in range(1, steps + 1))


def _steps(tmp_path: Path, *flags: str) -> int:
    steps = int(_run(tmp_path / "whole", 0, *flags)[-1]["calls"] or 0)
    assert steps > 60, "the steps are no longer counted"
    return steps


def _run(root: Path, at: int, *flags: str) -> list[dict[str, str | None]]:
    command = [sys.executable, str(WRITER), str(root), str(at), *flags]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == (-signal.SIGKILL if at else 0), done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def _problems(root: Path, at: int, *flags: str) -> list[str]:
    acknowledged = {line["key"] or "": line["md5"] for line in _run(root, at, *flags)}
    # Before anybody repairs anything, while the writer is dead, every row leads to its payload …
    reader = FilesystemBlobs(root, read_only=True)
    problems = _unreadable(reader)
    reader.close()
    # … and the next start sweeps what no row names.
    store = FilesystemBlobs(root, FakeClock(), sync=False)
    problems += _unreadable(store) + _lost(store, acknowledged) + _left_behind(store, root)
    store.close()
    return problems


def _unreadable(store: FilesystemBlobs) -> list[str]:
    problems = []
    for info in store.objects(BUCKET).objects:
        try:
            with store.open(BUCKET, info.key) as opened:
                if len(opened.read(1 << 20)) != info.size:
                    problems.append(f"{info.key} is cut off")
        except StorageFailed as error:
            problems.append(str(error))
    return problems


def _lost(store: FilesystemBlobs, acknowledged: dict[str, str | None]) -> list[str]:
    """A key holds what was acknowledged last, or what was being written when the kill came."""
    problems = []
    for key, md5 in acknowledged.items():
        life = [_hash(content) for content in LIVES[key]] if key in LIVES else [md5]
        now = life.index(md5)
        if _md5(store, key) not in life[now : now + 2]:
            problems.append(f"{key} is not what was acknowledged")
    return problems


def _left_behind(store: FilesystemBlobs, root: Path) -> list[str]:
    objects = store.objects(BUCKET).objects
    parts = [part for upload in store.uploads(BUCKET).uploads for part in store.parts(upload)]
    payloads = list((root / "data").glob("*/*"))
    left = [path.name for path in (root / "tmp").iterdir()]
    return left if len(payloads) == len(objects) + len(parts) else [*left, "orphaned payloads"]


def _md5(store: FilesystemBlobs, key: str) -> str | None:
    try:
        with store.open(BUCKET, key) as opened:
            return _hash(opened.read(1 << 20))
    except (NoSuchKey, StorageFailed):
        return None


def _hash(content: bytes | None) -> str | None:
    return None if content is None else hashlib.md5(content).hexdigest()
