"""The artefact cache: fetched once, whole or not at all, and every refusal with its code."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
