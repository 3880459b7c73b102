"""The artefact cache: fetched once, whole or not at all, and every refusal with its code."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from clary.blobs.base import Attributes, OutOfSpace
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.domain.instances import Artifact
from clary.host.archives import Limits
from clary.host.artifacts import Artifacts
from clary.host.failures import Refused
from clary.host.unpacking import Cancelled

LIMITS = Limits(max_members=100, max_bytes=64 << 20, max_ratio=1e6)


class Bench:
    """A cache over a blob store with one bucket."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        self.root = root / "artifacts"
        self.blobs = FilesystemBlobs(root / "objects", SystemClock(), sync=False)
        self.blobs.create_bucket("b", "us-east-1")
        self.cache = Artifacts(self.root, self.blobs, limits, SystemClock())

    def put(self, key: str, data: bytes) -> None:
        with self.blobs.stage() as staged:
            staged.write(data)
            etag = hashlib.md5(data).hexdigest()
            self.blobs.put("b", key, staged, etag=etag, attributes=Attributes())

    def obtain(
        self,
        uri: str,
        kind: str = "archive",
        timeout_s: float = 60,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Path:
        return self.cache.obtain(Artifact(uri, kind=kind), timeout_s, cancelled)  # type: ignore[arg-type]

    def entries(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_an_archive_is_unpacked_once_for_all(bench: Bench) -> None:
    bench.put("model.tar.gz", packed(model=b"m"))
    bench.put("same.tar.gz", bench.blobs.open("b", "model.tar.gz").read(1 << 20))
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: bench.obtain("s3://b/model.tar.gz"), range(8)))
    assert len(places) == 1
    assert bench.obtain("s3://b/same.tar.gz") in places
    assert (places.pop() / "model").read_bytes() == b"m"
    assert len(bench.entries()) == 1


def test_a_replaced_object_is_fetched_anew(bench: Bench) -> None:
    bench.put("model.tar.gz", packed(model=b"old"))
    bench.obtain("s3://b/model.tar.gz")
    bench.put("model.tar.gz", packed(model=b"new"))
    assert (bench.obtain("s3://b/model.tar.gz") / "model").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["archive", "object"])
def test_an_object_replaced_while_it_is_looked_at_is_not_taken_for_the_one_before(
    bench: Bench, kind: str
) -> None:
    def content() -> bytes:
        place = bench.obtain("s3://b/model", kind)
        return (place / "model" if kind == "archive" else place).read_bytes()

    old, new = (packed(model=text) if kind == "archive" else text for text in (b"old", b"new"))
    bench.put("model", old)
    head, open_ = bench.blobs.head, bench.blobs.open

    def and_then_replaced(look: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
        def looked(bucket: str, key: str) -> Any:
            found = look(bucket, key)
            bench.put("model", new)
            return found

        return looked

    with (
        patch.object(bench.blobs, "head", and_then_replaced(head)),
        patch.object(bench.blobs, "open", and_then_replaced(open_)),
    ):
        assert content() == b"old"
    assert content() == b"new"
    bench.put("model", old)
    assert content() == b"old"


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_prefix_that_changes_while_it_is_copied_is_listed_again(bench: Bench, change: str) -> None:
    for name in ("a", "b"):
        bench.put(f"data/{name}", b"old")
    changes = [1]
    open_ = bench.blobs.open

    def changed(bucket: str, key: str) -> Any:
        if changes:
            changes.pop()
            bench.blobs.delete("b", "data/b") if change == "deleted" else bench.put("data/b", b"new")
        return open_(bucket, key)

    with patch.object(bench.blobs, "open", changed):
        place = bench.obtain("s3://b/data/", "prefix")
    found = {path.name: path.read_bytes() for path in place.iterdir()}
    assert found == ({"a": b"old"} if change == "deleted" else {"a": b"old", "b": b"new"})
    assert len(bench.entries()) == 1


def test_a_prefix_that_changes_all_the_time_is_refused_with_what_to_do(bench: Bench) -> None:
    bench.put("data/a", b"0")
    numbers, open_ = count(1), bench.blobs.open

    def changed(bucket: str, key: str) -> Any:
        bench.put("data/a", b"%d" % next(numbers))
        return open_(bucket, key)

    with patch.object(bench.blobs, "open", changed), pytest.raises(Refused, match="try again"):
        bench.obtain("s3://b/data/", "prefix")
    assert bench.entries() == []


def test_a_prefix_is_copied_with_its_folders(bench: Bench) -> None:
    bench.put("data/a.csv", b"1")
    bench.put("data/deep/b.csv", b"2")
    bench.put("data/", b"")
    bench.put("other", b"3")
    place = bench.obtain("s3://b/data/", "prefix")
    assert {str(path.relative_to(place)) for path in place.rglob("*.csv")} == {"a.csv", "deep/b.csv"}
    bench.put("data/a.csv", b"changed")
    assert (bench.obtain("s3://b/data/", "prefix") / "a.csv").read_bytes() == b"changed"


def test_an_object_is_copied_as_it_is(bench: Bench) -> None:
    bench.put("config", b"as it is")
    assert bench.obtain("s3://b/config", "object").read_bytes() == b"as it is"


@pytest.mark.parametrize(
    ("uri", "kind", "code"),
    [
        ("s3://b/missing.tar.gz", "archive", "ArtifactMissing"),
        ("s3://no-such-bucket/x", "archive", "ArtifactMissing"),
        ("s3://b/nothing/", "prefix", "ArtifactMissing"),
        ("s3://b/broken", "archive", "ArtifactInvalid"),
        ("s3://b/hostile", "archive", "ArtifactInvalid"),
        ("s3://b/evil/", "prefix", "ArtifactInvalid"),
        ("file:///etc/passwd", "archive", "ArtifactInvalid"),
    ],
)
def test_H01_what_cannot_be_had_is_refused_with_its_address(
    bench: Bench, uri: str, kind: str, code: str
) -> None:
    bench.put("broken", b"no archive")
    bench.put("hostile", packed(**{"../evil": b""}))
    bench.put("evil/../../escaped", b"")
    with pytest.raises(Refused) as refused:
        bench.obtain(uri, kind)
    assert refused.value.code == code
    assert uri in str(refused.value)
    assert bench.entries() == []


def test_a_full_disk_is_named_and_leaves_nothing(bench: Bench) -> None:
    bench.put("model", b"m")
    with (
        patch.object(bench.blobs, "open", side_effect=OutOfSpace("no space left on device")),
        pytest.raises(Refused) as refused,
    ):
        bench.obtain("s3://b/model", "object")
    assert refused.value.code == "DiskFull"
    assert "free some space" in str(refused.value)
    assert bench.entries() == []


def test_a_disk_that_fills_while_unpacking_is_named_and_leaves_nothing(bench: Bench) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses the write the same way."""
    bench.put("model.tar.gz", packed(model=os.urandom(1 << 20)))
    limited = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh"]
    real = subprocess.Popen
    with (
        patch("subprocess.Popen", lambda command, **options: real(limited + command, **options)),
        pytest.raises(Refused) as refused,
    ):
        bench.obtain("s3://b/model.tar.gz")
    assert refused.value.code == "DiskFull"
    assert bench.entries() == []


def test_a_cancelled_fetch_ends_and_leaves_nothing(bench: Bench) -> None:
    bench.put("model.tar.gz", packed(model=b"m"))
    with pytest.raises(Cancelled):
        bench.obtain("s3://b/model.tar.gz", cancelled=lambda: True)
    assert bench.entries() == []


def test_unpacking_has_its_time(bench: Bench) -> None:
    bench.put("model.tar.gz", packed(model=bytes(32 << 20)))
    with pytest.raises(Refused) as refused:
        bench.obtain("s3://b/model.tar.gz", timeout_s=-1)
    assert refused.value.code == "DownloadTimeout"
    assert bench.entries() == []


def test_parts_of_an_earlier_host_and_entries_of_an_earlier_boot_are_dropped(bench: Bench) -> None:
    bench.put("model", b"m")
    bench.obtain("s3://b/model", "object")
    (bench.root / ".part-12345678-x").mkdir()
    Artifacts(bench.root, bench.blobs, LIMITS, SystemClock())
    assert len(bench.entries()) == 1
    (bench.root / ".boot-id").write_text("another boot")
    Artifacts(bench.root, bench.blobs, LIMITS, SystemClock())
    assert bench.entries() == []
